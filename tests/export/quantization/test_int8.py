"""INT8 layers: one scale for all inputs, and what smoothing saves of narrow channels."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from export.precision import Precision
from export.quantization.int8 import INT8, Int8Linear, channel_amax, smoothing
from tests.export.quantization.exporting import exported, inputs, mlp, relative_l2, run


def layer() -> nn.Linear:
    linear = mlp()[0]
    assert isinstance(linear, nn.Linear)
    return linear


def error(x: Tensor, channels: Tensor) -> float:
    with torch.no_grad():
        return relative_l2(Int8Linear(layer(), channels)(x), layer()(x))


def test_a_wide_channel_is_smoothed_and_costs_the_others_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = inputs()
    smoothed = error(x, channel_amax((x,)))
    monkeypatch.setattr("export.quantization.int8.STRENGTHS", (0.0,))
    assert smoothed < 0.6 * error(x, channel_amax((x,)))
    assert smoothed < 0.02


def test_channels_that_are_equally_wide_are_left_alone() -> None:
    even = torch.ones(layer().in_features)
    weight = torch.ones(4, layer().in_features)
    assert smoothing(weight, even) is None


def test_what_exceeds_the_recorded_range_is_clamped_and_not_wrapped() -> None:
    linear = nn.Linear(1, 1, bias=False)
    nn.init.ones_(linear.weight)
    made = Int8Linear(linear, torch.tensor([2.0]))
    with torch.no_grad():
        assert made(torch.tensor([[1000.0]])).item() == pytest.approx(2.0, rel=1e-5)
        assert made(torch.tensor([[-1000.0]])).item() == pytest.approx(-2.0, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_of_zeros_stays_finite(dtype: torch.dtype) -> None:
    linear = nn.Linear(4, 4, dtype=dtype)
    nn.init.zeros_(linear.weight)
    made = Int8Linear(linear, torch.zeros(4))
    with torch.no_grad():
        assert torch.isfinite(made(torch.randn(2, 4, dtype=dtype))).all()


def test_onnx_runtime_computes_what_torch_computes(tmp_path: Path) -> None:
    graph = exported(INT8, tmp_path / "x.onnx")
    with torch.no_grad():
        expected = graph.module(inputs())
    assert relative_l2(run(tmp_path / "x.onnx", inputs()), expected) < 1e-5
    with torch.no_grad():
        assert 1e-3 < relative_l2(expected, mlp()(inputs())) < 0.03


def test_a_graph_for_tensorrt_stores_a_byte_a_weight_in_standard_operators(tmp_path: Path) -> None:
    exported(INT8, tmp_path / "x.onnx", Precision.BF16)
    graph = onnx.load(tmp_path / "x.onnx").graph
    assert {node.domain for node in graph.node} == {""}
    stored = {weight.name: weight.data_type for weight in graph.initializer}
    assert stored["0.weight"] == stored["2.weight"] == TensorProto.INT8
