"""INT4 weights: groups, the best scale of each, and the same numbers in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from export.precision import Precision
from export.quantization.int4 import GROUP, INT4, Int4Linear, dequantize, group_of
from tests.export.quantization.exporting import (
    HIDDEN,
    IN,
    exported,
    inputs,
    mlp,
    relative_l2,
    run,
)


def test_a_layer_keeps_half_a_byte_a_weight_and_a_scale_a_group() -> None:
    linear = mlp(torch.bfloat16)[0]
    assert isinstance(linear, nn.Linear)
    made = Int4Linear(linear)
    assert made.weight_scale.shape == (IN // GROUP, HIDDEN)
    assert made.weight.nbytes + made.weight_scale.nbytes == INT4.weight_bytes * IN * HIDDEN


def test_clipping_the_largest_weight_of_a_group_is_worth_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    linear = mlp()[0]
    assert isinstance(linear, nn.Linear)

    def error() -> float:
        made = Int4Linear(linear)
        return relative_l2(dequantize(made.weight, made.weight_scale).T, linear.weight.detach())

    best = error()
    monkeypatch.setattr("export.quantization.int4.CLIPPED", (1.0,))
    assert best < error() < 0.15


@pytest.mark.parametrize(
    ("inputs_of", "group"), [(3072, 128), (160, 32), (128, 64), (4304, 16), (100, 0)]
)
def test_a_group_divides_the_inputs_of_its_layer(inputs_of: int, group: int) -> None:
    assert group_of(inputs_of) == group
    assert INT4.replaces(nn.Linear(inputs_of, 4)) == (group > 0)


def test_onnx_runtime_computes_what_torch_computes(tmp_path: Path) -> None:
    graph = exported(INT4, tmp_path / "x.onnx")
    with torch.no_grad():
        expected = graph.module(inputs())
    assert relative_l2(run(tmp_path / "x.onnx", inputs()), expected) < 1e-5
    with torch.no_grad():
        assert 0.02 < relative_l2(expected, mlp()(inputs())) < 0.2


def test_a_graph_for_tensorrt_stores_int4_in_standard_operators(tmp_path: Path) -> None:
    exported(INT4, tmp_path / "x.onnx", Precision.BF16)
    graph = onnx.load(tmp_path / "x.onnx").graph
    assert {node.domain for node in graph.node} == {""}
    stored = {w.name: (w.data_type, list(w.dims)) for w in graph.initializer}
    assert stored["0.weight"] == (TensorProto.INT4, [IN, HIDDEN])
    assert stored["0.weight_scale"] == (TensorProto.BFLOAT16, [IN // GROUP, HIDDEN])
