"""Floors: counted on shapes, bounded by the slower of arithmetic and memory."""

from __future__ import annotations

import pytest

from benchmarks.roofline import GPUS, Peaks, Work, work
from export.families.instantcharacter.config import FLUX

DEVICE = Peaks(tflops=100, fp8_tflops=200, tb_per_s=1)


def test_a_graph_of_many_products_is_bound_by_arithmetic_and_fp8_halves_that() -> None:
    done = Work(flop=1e12, fp8_flop=1e12, weights=10, fp8_weights=10, io_values=10)
    assert done.floor_ms(DEVICE, num_bytes=2) == pytest.approx(10)
    assert done.floor_ms(DEVICE, num_bytes=2, fp8=True) == pytest.approx(5)


def test_a_graph_of_many_weights_is_bound_by_memory_and_fp8_halves_those_weights() -> None:
    done = Work(flop=1e6, fp8_flop=1e6, weights=10**9, fp8_weights=10**9, io_values=0)
    assert done.floor_ms(DEVICE, num_bytes=2) == pytest.approx(2)
    assert done.floor_ms(DEVICE, num_bytes=2, fp8=True) == pytest.approx(1)


@pytest.mark.slow
def test_the_full_size_step_is_what_its_cost_model_says_and_its_parts_add_up_to_it() -> None:
    found = work(FLUX, 1024)
    whole = found["transformer"]
    assert whole.flop / 1e12 == pytest.approx(80.3, abs=0.5)
    parts = [found[f"transformer_{part}"] for part in ("head", "tail", "finish")]
    assert sum(part.flop for part in parts) == pytest.approx(whole.flop, rel=1e-3)
    assert sum(part.weights for part in parts) == pytest.approx(whole.weights, rel=1e-3)
    # Without the modulations, which another graph makes.
    assert whole.weights / 1e9 == pytest.approx(11.9 - 3.28 + 1.43, abs=0.05)
    assert found["transformer_head"].flop / whole.flop < 0.02
    assert 0.8 < whole.fp8_flop / whole.flop + 0.22 < 1.01  # the rest is attention
    h200 = whole.floor_ms(GPUS["H200 SXM"], num_bytes=2)
    assert h200 == pytest.approx(whole.flop / 989e12 * 1000)
