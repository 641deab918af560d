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

from export.attention import ScaledDotProduct
from export.families.instantcharacter.subject_attention import SubjectRMSNorm
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


class Heads(nn.Module):
    """Attention as FLUX has it: projected, normalized, turned, heads before tokens and back."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(24, 24) for _ in range(3))
        self.norm_query, self.norm_key = nn.RMSNorm(8, 1e-6), SubjectRMSNorm(8)
        self.core = ScaledDotProduct()
        self.shared = shared

    def forward(self, x: Tensor, y: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`[B, S, 24]` queries of x, keys and values of y, which has one row if it is shared."""
        q, k, v = (
            project(given).unflatten(-1, (-1, 8))
            for project, given in ((self.query, x), (self.key, y), (self.value, y))
        )
        q, k = self.norm_query(q), self.norm_key(k)
        if not self.shared:
            q, k = (apply_rotary_emb(one, (cos, sin), sequence_dim=1) for one in (q, k))
        q, k, v = (one.transpose(1, 2) for one in (q, k, v))
        if self.shared:
            k, v = (one.expand(len(x), -1, -1, -1) for one in (k, v))
        out: Tensor = self.core(q, k, v)
        return out.transpose(1, 2).flatten(2)


def tables(tokens: int, dim: int) -> tuple[Tensor, Tensor]:
    """cos and sin, which FLUX's tables hold twice for each pair."""
    angles = torch.randn(tokens, dim // 2).repeat_interleave(2, dim=1)
    return angles.cos(), angles.sin()


@pytest.mark.parametrize("shared", [False, True], ids=["joint", "subject"])
def test_attention_takes_tokens_as_they_are_and_moves_no_head(shared: bool) -> None:
    cos, sin = tables(9, 8)
    inputs = {"x": torch.randn(2, 9, 24), "y": torch.randn(1 if shared else 2, 9, 24)}
    inputs |= {} if shared else {"cos": cos, "sin": sin}
    dynamic = {"x": {0: "B", 1: "S"}, "y": {1: "N"} if shared else {0: "B", 1: "S"}}
    dynamic |= {} if shared else {"cos": {0: "S"}, "sin": {0: "S"}}
    module: nn.Module = Heads(shared=shared)
    if shared:
        module = Shared(module)
    operators, error = exported(ExportGraph(module, inputs, dynamic, ("out",)))
    assert (operators["Attention"], operators["Transpose"]) == (1, 0)
    assert operators["RMSNormalization"] == 2
    assert operators["RotaryEmbedding"] == (0 if shared else 2)
    assert error < 2e-5


class Shared(nn.Module):
    """Attention to keys and values of one row, without RoPE."""

    def __init__(self, heads: nn.Module) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """`[B, S, 24]` and `[1, N, 24]`."""
        out: Tensor = self.heads(x, y, y, y)
        return out


def test_rotary_pairs_are_turned_by_one_operator() -> None:
    cos, sin = tables(9, 8)
    inputs = {"x": torch.randn(2, 9, 3, 8), "cos": cos, "sin": sin}
    dynamic = {"x": {0: "B", 1: "S"}, "cos": {0: "S"}, "sin": {0: "S"}}
    operators, error = exported(ExportGraph(Rotary(), inputs, dynamic, ("y",)))
    assert (operators["RotaryEmbedding"], operators["Neg"], operators["Mul"]) == (1, 0, 0)
    assert error < 1e-6


def test_a_norm_of_zeros_is_zero() -> None:
    x = torch.zeros(1, 2, 8)
    operators, error = exported(ExportGraph(SubjectRMSNorm(8), {"x": x}, {"x": {}}, ("y",)))
    assert operators == {"RMSNormalization": 1}
    assert error == 0
