"""NVFP4 with a branch of low rank: what it saves, what it stores, the same numbers in a graph."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import TensorProto
from torch import nn

from export.precision import Precision
from export.quantization.int8 import channel_amax
from export.quantization.nvfp4 import NvFp4Linear
from export.quantization.svdquant import RANK, SVDQUANT, SvdQuantLinear
from tests.export.quantization.exporting import (
    HIDDEN,
    IN,
    exported,
    inputs,
    mlp,
    relative_l2,
    run,
)


def layer() -> nn.Linear:
    """With a few directions that are much stronger than the rest, as trained weights have."""
    linear = mlp()[0]
    assert isinstance(linear, nn.Linear)
    strong = torch.randn(HIDDEN, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        linear.weight += strong @ strong[:IN].T / 8
    return linear


def test_the_branch_takes_what_four_bits_would_lose() -> None:
    x = inputs()
    with torch.no_grad():
        exact = layer()(x)
        plain = relative_l2(NvFp4Linear(layer(), float(x.abs().max()))(x), exact)
        assert relative_l2(SvdQuantLinear(layer(), channel_amax((x,)))(x), exact) < 0.6 * plain


def test_the_same_weights_give_the_same_layer_and_draw_nothing_of_the_caller_s() -> None:
    linear, made = layer(), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        made.append(SvdQuantLinear(linear, torch.ones(IN)))
        assert torch.equal(torch.get_rng_state(), before)
    one, other = (layer.state_dict() for layer in made)
    assert all(torch.equal(one[name].float(), other[name].float()) for name in one)


def test_its_bytes_are_counted_with_both_thin_matrices() -> None:
    made = SvdQuantLinear(layer().bfloat16(), torch.ones(IN))
    parts = (made.weight, made.block_scale, made.down, made.up)
    assert sum(part.nbytes for part in parts) == SVDQUANT.stored_bytes(layer())


def test_onnx_runtime_computes_what_torch_computes(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    graph = exported(SVDQUANT, path)
    with torch.no_grad():
        expected = graph.module(inputs())
    assert relative_l2(run(path, inputs()), expected) < 1e-5


def test_a_graph_for_tensorrt_has_fp4_beside_two_products_in_bf16(tmp_path: Path) -> None:
    exported(SVDQUANT, tmp_path / "x.onnx", Precision.BF16)
    graph = onnx.load(tmp_path / "x.onnx").graph
    stored = {w.name: (w.data_type, list(w.dims)) for w in graph.initializer}
    assert stored["0.weight"] == (TensorProto.FLOAT4E2M1, [IN, HIDDEN])
    assert stored["0.down"] == (TensorProto.BFLOAT16, [IN, RANK])
    assert stored["0.up"] == (TensorProto.BFLOAT16, [RANK, HIDDEN])
