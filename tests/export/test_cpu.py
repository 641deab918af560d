"""Graphs in the words of ONNX Runtime's fast kernels compute what torch computes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from export.graphs import ExportGraph
from export.to_onnx import ir_model


class Rotary(nn.Module):
    """RoPE as FLUX has it."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned: Tensor = apply_rotary_emb(x, (cos, sin), sequence_dim=1)
        return turned


def exported(graph: ExportGraph) -> tuple[Counter[str], float]:
    """The operators of the rewritten graph, and how far at most it is from torch."""
    torch.manual_seed(0)
    for weight in graph.module.parameters():
        nn.init.normal_(weight)
    model = ir_model(graph, for_cpu=True)
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    with torch.no_grad():
        expected = graph.module(*graph.inputs.values()).numpy()
    (found,) = session.run(None, {name: x.numpy() for name, x in graph.inputs.items()})
    assert found.shape == expected.shape
    return Counter(node.op_type for node in model.graph), float(np.abs(found - expected).max())


@pytest.mark.parametrize(("groups", "sides"), [(1, (5, 7)), (4, (5, 7)), (2, (35,))])
def test_group_norm_is_a_scale_and_a_shift_of_each_channel(
    groups: int, sides: tuple[int, ...]
) -> None:
    x = 3 * torch.randn(2, 8, *sides) + 1
    dynamic = {"x": {0: "B"} | {2 + axis: f"side{axis}" for axis in range(len(sides))}}
    operators, error = exported(ExportGraph(nn.GroupNorm(groups, 8), {"x": x}, dynamic, ("y",)))
    assert "GroupNormalization" not in operators
    assert error < 1e-5


@pytest.mark.parametrize(
    ("module", "convolutions", "resizes"),
    [
        (Upsample2D(6, use_conv=True, out_channels=10), 4, 0),
        (nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(6, 6, 3)), 1, 1),
    ],
    ids=["keeps-the-size", "does-not"],
)
def test_a_convolution_that_keeps_the_size_is_done_before_the_doubling(
    module: nn.Module, convolutions: int, resizes: int
) -> None:
    dynamic = {"x": {0: "B", 2: "h", 3: "w"}}
    graph = ExportGraph(module, {"x": torch.randn(2, 6, 3, 5)}, dynamic, ("y",))
    operators, error = exported(graph)
    assert (operators["Conv"], operators["Resize"]) == (convolutions, resizes)
    assert error < 1e-4


def test_rotary_pairs_are_turned_by_one_product_to_the_bit() -> None:
    inputs = {
        "x": torch.randn(2, 9, 3, 8),
        "cos": torch.randn(9, 8),
        "sin": torch.randn(9, 8),
    }
    dynamic = {"x": {0: "B", 1: "S"}, "cos": {0: "S"}, "sin": {0: "S"}}
    operators, error = exported(ExportGraph(Rotary(), inputs, dynamic, ("y",)))
    assert (operators["MatMul"], operators["Neg"], operators["Concat"]) == (1, 0, 0)
    assert error == 0
