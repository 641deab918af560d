"""One graph from torch to ONNX; weights stored in fp16 where asked, arithmetic in fp32."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from export.fp8 import TRANSLATIONS
from export.graphs import ExportGraph

OPSET = 23
SMALLEST_CAST = 256
"""Elements below which a weight stays fp32: it would cost more in nodes than it saves in bytes."""


def to_onnx(graph: ExportGraph, path: Path, *, fp16_weights: bool = False) -> None:
    """Export a graph and write it, checked, to one file.

    Args:
        graph: What to export.
        path: Where to write.
        fp16_weights: Store large weights in fp16 with a Cast behind each, which the engine folds
            when it loads: half the bytes on disk, fp32 arithmetic.
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
            custom_translation_table=dict(TRANSLATIONS),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for value in model.graph.input:
        for axis, name in graph.dynamic[value.name].items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    if fp16_weights:
        _store_fp16(model)
    _forget_source(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _store_fp16(model: onnx.ModelProto) -> None:
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < SMALLEST_CAST:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype("float16"), f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _forget_source(model: onnx.ModelProto) -> None:
    """Drop stack traces and paths of the machine that exported: they bloat the file and leak."""
    model.doc_string = ""
    del model.metadata_props[:]
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    del model.graph.value_info[:]
    for function in model.functions:
        function.doc_string = ""
