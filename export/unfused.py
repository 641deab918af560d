"""Attention in words that TensorRT does not fuse into one kernel, for GPUs on which that is wrong.

TensorRT recognises a softmax between two products whatever is cast around it. The exponential of a
logarithm of a softmax, which is the same, it computes between two products of their own: slower,
and every attention's weights lie in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


def write_unfused(source: Path, folder: Path) -> Path:
    """Write a graph with its attentions rewritten; weights beside it are linked, not copied.

    Args:
        source: The ONNX file.
        folder: Where the new one goes, under the same name.
    """
    model = unfused(onnx.load(source, load_external_data=False))
    data = source.with_name(f"{source.name}.data")
    if data.is_file():
        (folder / data.name).symlink_to(data.resolve())
    target = folder / source.name
    target.write_bytes(model.SerializeToString(deterministic=True))
    return target


def unfused(model: ModelProto) -> ModelProto:
    """The model, changed in place: no softmax between two products is left."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    types = {
        value.name: value.type.tensor_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    types |= {weight.name: _tensor_type(weight) for weight in graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Softmax":
            (axis,) = [a.i for a in node.attribute if a.name == "axis"] or [-1]
            kind = types[node.input[0]].elem_type
            nodes += _softmax(node.name, node.input[0], node.output[0], kind, axis)
        elif node.op_type == "Attention":
            nodes += _attention(node, types, model)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _attention(
    node: NodeProto, types: dict[str, onnx.TypeProto.Tensor], model: ModelProto
) -> Iterator[NodeProto]:
    query, key, value, *mask = node.input
    at = node.name
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    kind, head_dim = types[query].elem_type, types[query].shape.dim[-1].dim_value
    # Tokens with all of their heads are what a CPU is given, not TensorRT.
    odd = {"is_causal", "softcap", "q_num_heads"} & {k for k, v in given.items() if v}
    odd |= {"masks"} if len(mask) > 1 else set()
    if odd or not (given.get("scale") or head_dim):
        raise ValueError(f"attention {at!r} is of a kind that the exporter does not write")
    scale = np.array(given.get("scale") or head_dim**-0.5, np.float32)
    model.graph.initializer.append(numpy_helper.from_array(scale, f"{at}/scale_fp32"))
    yield _node("Cast", [f"{at}/scale_fp32"], f"{at}/scale", to=kind)
    yield _node("Mul", [query, f"{at}/scale"], f"{at}/scaled")
    yield _node("Transpose", [key], f"{at}/turned", perm=[0, 1, 3, 2])
    yield _node("MatMul", [f"{at}/scaled", f"{at}/turned"], f"{at}/scores")
    scores = f"{at}/scores"
    if mask and types[mask[0]].elem_type == TensorProto.BOOL:
        lowest = np.array(np.finfo(np.float32).min, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(lowest, f"{at}/lowest_fp32"))
        yield _node("Cast", [f"{at}/lowest_fp32"], f"{at}/lowest", to=kind)
        yield _node("Where", [mask[0], scores, f"{at}/lowest"], f"{at}/masked")
        scores = f"{at}/masked"
    elif mask:
        yield _node("Add", [scores, mask[0]], f"{at}/masked")
        scores = f"{at}/masked"
    yield from _softmax(at, scores, f"{at}/weights", kind, -1)
    yield _node("MatMul", [f"{at}/weights", value], node.output[0])


def _softmax(at: str, scores: str, weights: str, kind: int, axis: int) -> Iterator[NodeProto]:
    """In fp32: logarithms of small weights would lose in anything narrower."""
    yield _node("Cast", [scores], f"{at}/wide", to=TensorProto.FLOAT)
    yield _node("LogSoftmax", [f"{at}/wide"], f"{at}/logarithms", axis=axis)
    yield _node("Exp", [f"{at}/logarithms"], f"{at}/exponentials")
    yield _node("Cast", [f"{at}/exponentials"], weights, to=kind)


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes)


def _tensor_type(weight: TensorProto) -> onnx.TypeProto.Tensor:
    made = helper.make_tensor_type_proto(weight.data_type, list(weight.dims))
    return made.tensor_type
