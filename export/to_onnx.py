"""One graph from torch to ONNX, cleaned by passes that do not slow down with its size."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import Sequential, common
from onnx_ir.tape import Tape
from onnxscript.optimizer import _constant_folding as constant_folding  # no public pass
from onnxscript.rewriter import RewritePass

from export.cpu import RULES
from export.graphs import ExportGraph
from export.optional import either
from export.precision import Precision
from export.quantization.four_bits import give_types
from export.quantization.registry import translations

OPSET = 23
SMALLEST_CAST = 256
"""Elements below which a weight stays fp32: it would cost more in nodes than it saves in bytes."""
LARGEST_FOLD = 1024
"""Elements above which constants are weights: only their transposition is computed here, and in
graphs with external weights nothing, so that they keep their names and are never read."""
WIDEST_FUSED_HEAD = 128
"""Channels of a head above which TensorRT has no kernel and refuses the Attention operator."""
QUERY_CHUNKS = 4
"""Parts of the queries of an attention that is written out: its weights, the largest tensor of a
VAE's decoder by far, are then there one part after the other."""
SMALLEST_EXTERNAL = 2**30
"""Bytes of weights above which they go to a file beside the graph; protobuf ends at 2 GiB."""
TRANSPOSED = ".T"
"""Behind the name of a weight of a linear layer, which is stored as the engine multiplies it."""
NARROW = ".fp16"
"""Behind the name of a weight that is stored in fp16 and cast when it is loaded."""


def to_onnx(
    graph: ExportGraph,
    path: Path,
    *,
    precision: Precision = Precision.FP32,
    external_bytes: int = SMALLEST_EXTERNAL,
) -> list[Path]:
    """Export a graph and write it, checked.

    Args:
        graph: What to export; its module has the dtype of `precision`.
        path: Where to write.
        precision: With `FP16_WEIGHTS` large weights are stored in fp16 with a Cast behind each,
            which the engine folds when it loads.
        external_bytes: Weights of more go to `path` with `.data` appended.

    Returns:
        The files written, the graph first.
    """
    parts = (*graph.module.parameters(), *graph.module.buffers())
    is_external = sum(part.nbytes for part in parts) > external_bytes
    model = ir_model(graph, fold_weights=not is_external, for_cpu=precision.for_cpu)
    if is_external:
        data = path.with_name(f"{path.name}.data")
        ir.save(model, path, external_data=data.name)
        onnx.checker.check_model(str(path), full_check=False)
        return [path, data]
    proto = _proto(model)
    if precision.for_cpu and graph.optional:
        plain = ir_model(graph.without_optional(), for_cpu=True)
        (name,) = graph.optional
        proto = either(proto, _proto(plain), name)
    if precision is Precision.FP16_WEIGHTS:
        _store_fp16(proto)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return [path]


def _proto(model: ir.Model) -> onnx.ModelProto:
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    return proto


def ir_model(graph: ExportGraph, *, fold_weights: bool = True, for_cpu: bool = False) -> ir.Model:
    """Export a graph to memory.

    The exporter's own optimizer is not used: its rewrite rules take ten minutes at full size and
    gain nothing that an engine does not do itself.

    Args:
        graph: What to export.
        fold_weights: Store the weights of linear layers transposed, which saves the engine the
            work at every load; else they stay where they are and are not copied.
        for_cpu: Use operators that ONNX Runtime has fast kernels for, see `export.cpu`.
    """
    dynamic = {
        name: dict.fromkeys(graph.dynamic[name], torch.export.Dim.DYNAMIC) for name in graph.inputs
    }
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.module,
            tuple(graph.inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=tuple(dynamic.values()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            custom_translation_table=translations(for_cpu=for_cpu),
            optimize=False,
            verbose=False,
        )
    assert program is not None
    model = program.model
    for value in model.graph.inputs:
        assert value.name is not None
        assert value.shape is not None
        names = graph.dynamic[value.name]
        value.shape = ir.Shape([names.get(axis, dim) for axis, dim in enumerate(value.shape)])
    common.InlinePass()(model)
    give_types(model)
    _write_out_wide_attention(model)
    _name_transposed_weights(model)
    Sequential(
        constant_folding.FoldConstantsPass(
            shape_inference=True,
            input_size_limit=LARGEST_FOLD,
            output_size_limit=LARGEST_FOLD,
            should_fold=lambda node: None if fold_weights or not _reads_a_weight(node) else False,
        ),
        *([RewritePass(RULES)] if for_cpu else []),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        # Scales that layers with one input share, so that it is rounded once.
        common.DeduplicateInitializersPass(size_limit=1),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
        # Stack traces and paths of the machine that exported bloat the file and leak.
        common.ClearMetadataAndDocStringPass(),
    )(model)
    _forget_source(model)
    return model


def _reads_a_weight(node: ir.Node) -> bool:
    constants = (value.const_value for value in node.inputs if value is not None)
    return any(constant.size > LARGEST_FOLD for constant in constants if constant is not None)


def _name_transposed_weights(model: ir.Model) -> None:
    """Else folding leaves a number in place of the weight's name."""
    for node in model.graph:
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is not None and weight.is_initializer():
            node.outputs[0].name = f"{weight.name}{TRANSPOSED}"


def _write_out_wide_attention(model: ir.Model) -> None:
    """Attention with wide heads, such as the VAE's, as products around softmaxes."""
    for node in list(model.graph):
        if node.op_type != "Attention" or any(node.inputs[3:]):
            continue
        query, key, value = node.inputs[:3]
        assert query is not None
        assert query.dtype is not None
        assert query.shape is not None
        dim = query.shape[-1]
        if not isinstance(dim, int) or dim <= WIDEST_FUSED_HEAD:
            continue
        scale = node.attributes["scale"].as_float() if "scale" in node.attributes else dim**-0.5
        tape = Tape()
        factor = ir.tensor(np.array(scale, query.dtype.numpy()), name=f"{node.name}_scale")
        scaled = tape.op("Mul", [query, tape.op("Constant", [], {"value": factor})])
        turned = tape.op("Transpose", [key], {"perm": [0, 1, 3, 2]})
        chunks = tape.op_multi_out(
            "Split", [scaled], {"axis": 2, "num_outputs": QUERY_CHUNKS}, num_outputs=QUERY_CHUNKS
        )
        weights = [
            tape.op("Softmax", [tape.op("MatMul", [chunk, turned])], {"axis": -1})
            for chunk in chunks
        ]
        parts = [tape.op("MatMul", [weight, value]) for weight in weights]
        out = tape.op("Concat", parts, {"axis": 2})
        out.shape, out.type = node.outputs[0].shape, node.outputs[0].type
        ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], list(tape.nodes), [node.outputs[0]], [out]
        )


def _store_fp16(model: onnx.ModelProto) -> None:
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if values.size < SMALLEST_CAST:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype("float16"), f"{name}{NARROW}"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _forget_source(model: ir.Model) -> None:
    """Drop what is left of the exporter's notes: torch names of tensors and the program's text."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    outputs = (value for node in model.graph.all_nodes() for value in node.outputs)
    for value in (*model.graph.inputs, *model.graph.initializers.values(), *outputs):
        value.metadata_props.clear()
        value.doc_string = None
