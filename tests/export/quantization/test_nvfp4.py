"""NVFP4 layers: FP4's own values, blocks and scales, and the same numbers in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from export.attention import ScaledDotProduct
from export.precision import Precision
from export.quantization.four_bits import pack, unpack
from export.quantization.fp8 import FP8_ATTENTION, Fp8Linear
from export.quantization.nvfp4 import (
    BLOCK,
    NVFP4,
    PLUGIN,
    PLUGIN_DOMAIN,
    NvFp4Linear,
    dequantize,
    quantize_dequantize,
)
from export.quantization.quantize import quantize
from tests.export.quantization.exporting import (
    HIDDEN,
    IN,
    exported,
    inputs,
    mlp,
    quantized,
    relative_l2,
    run,
)


def reference(x: Tensor, scale: Tensor) -> Tensor:
    """NVFP4's definition with ml_dtypes' roundings, which torch has not."""
    blocks = x.numpy().reshape(-1, BLOCK)
    amax = np.abs(blocks).max(-1, keepdims=True)
    block_scale = (amax / (scale.numpy() * 6)).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    wide = block_scale * scale.numpy()
    values = (blocks / wide).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    return torch.from_numpy((values * wide).reshape(x.shape))


def test_inputs_round_as_numpy_s_fp4_and_fp8_do() -> None:
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    scale = x.abs().max() / (6 * 448)
    assert torch.equal(quantize_dequantize(x, scale), reference(x, scale))


@pytest.mark.parametrize(
    ("value", "nearest"),
    [(0.25, 0.0), (0.75, 1.0), (1.25, 1.0), (1.75, 2.0), (2.5, 2.0), (3.5, 4.0), (5.0, 4.0)],
)
def test_of_two_values_as_near_the_even_one_is_taken(value: float, nearest: float) -> None:
    x = torch.zeros(1, BLOCK)
    x[0, 0], x[0, 1], x[0, 2] = 6.0, value, -value
    found = quantize_dequantize(x, torch.tensor(1.0))
    assert found[0, :3].tolist() == [6.0, nearest, -nearest]


def test_a_block_is_rounded_alone_so_a_wide_one_costs_its_neighbours_nothing() -> None:
    x = torch.randn(1, 2 * BLOCK, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor(1.0 / 448)
    alone = quantize_dequantize(x, scale)
    x[0, BLOCK:] *= 100
    assert torch.equal(quantize_dequantize(x, scale)[0, :BLOCK], alone[0, :BLOCK])


def test_zeros_and_what_is_too_small_for_a_scale_become_zeros() -> None:
    x = torch.zeros(1, 2 * BLOCK)
    x[0, 0] = 1e-20
    assert torch.equal(quantize_dequantize(x, torch.tensor(1.0)), torch.zeros_like(x))
    linear = nn.Linear(BLOCK, BLOCK)
    nn.init.zeros_(linear.weight)
    assert torch.isfinite(NvFp4Linear(linear, 0.0)(x[:, :BLOCK])).all()


def test_a_layer_keeps_nine_bits_for_two_weights_and_its_best_scales() -> None:
    linear = mlp()[0]
    assert isinstance(linear, nn.Linear)
    made = NvFp4Linear(linear, 1.0)
    assert made.weight.nbytes + made.block_scale.nbytes == NVFP4.weight_bytes * IN * HIDDEN
    assert made.block_scale.dtype == torch.float8_e4m3fn
    found = dequantize(made.weight, made.block_scale, made.weight_scale).T
    weight = linear.weight.detach()
    plain = reference(weight, weight.abs().max() / (6 * 448))
    assert relative_l2(found, weight) < relative_l2(plain, weight) < 0.12


def test_bytes_hold_the_even_column_in_their_low_half() -> None:
    codes = torch.arange(16).reshape(2, 8)
    assert pack(codes)[0].tolist() == [0x10, 0x32, 0x54, 0x76]
    assert torch.equal(unpack(pack(codes)), codes.to(torch.uint8))


def test_onnx_runtime_computes_what_torch_computes(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    graph = exported(NVFP4, path)
    with torch.no_grad():
        expected, exact = graph.module(inputs()), mlp()(inputs())
    assert relative_l2(run(path, inputs()), expected) < 1e-5
    assert 0.02 < relative_l2(expected, exact) < 0.25

    # Twice the values and half the scales are the same weights in operators that a CPU has.
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {""}
    stored = {weight.name: weight for weight in model.graph.initializer}
    values = onnx.numpy_helper.to_array(stored["0.weight"])
    assert values.dtype == np.int8
    assert set(np.abs(values).ravel().tolist()) == {0, 1, 2, 3, 4, 6, 8, 12}


def test_a_graph_for_tensorrt_holds_fp4_and_one_plugin_an_input(tmp_path: Path) -> None:
    exported(NVFP4, tmp_path / "x.onnx", Precision.BF16)
    graph = onnx.load(tmp_path / "x.onnx").graph
    stored = {w.name: (w.data_type, list(w.dims)) for w in graph.initializer}
    assert stored["0.weight"] == (TensorProto.FLOAT4E2M1, [IN, HIDDEN])
    assert stored["0.block_scale"] == (TensorProto.FLOAT8E4M3FN, [IN // BLOCK, HIDDEN])
    foreign = [(node.domain, node.op_type) for node in graph.node if node.domain]
    assert foreign == [(PLUGIN_DOMAIN, PLUGIN)] * 2
    packed = quantized(NVFP4, torch.bfloat16)[0].get_buffer("weight")
    (weight,) = [w for w in graph.initializer if w.name == "0.weight"]
    assert weight.raw_data == packed.numpy().tobytes()


def test_sensitive_layers_and_attention_are_fp8() -> None:
    made, ranges = mlp(), {"0": torch.tensor(1.0), "2": torch.tensor(1.0)}
    assert quantize(made, ranges, NVFP4, (), sensitive=("2",)) == ["0", "2"]
    assert isinstance(made[0], NvFp4Linear)
    assert isinstance(made[2], Fp8Linear)
    assert NVFP4.replaces(ScaledDotProduct())
    assert NVFP4.kernels[1:] == FP8_ATTENTION.kernels
