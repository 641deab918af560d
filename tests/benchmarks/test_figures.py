"""Figures and how far they can be trusted."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.figures import BETWEEN_RUNS, interval, percentiles, ratio


def test_percentiles_are_values_that_were_seen_and_the_median_is_the_middle() -> None:
    found = percentiles([5.0, 1.0, 2.0, 4.0, 3.0])
    assert found == {
        "p50_ms": 3.0,
        "p90_ms": 5.0,
        "p95_ms": 5.0,
        "p99_ms": 5.0,
        "min_ms": 1.0,
        "max_ms": 5.0,
        "runs": 5,
    }


def test_an_interval_holds_the_mean_it_was_drawn_around_and_narrows_with_more_values() -> None:
    random = np.random.default_rng(1)
    few, many = (interval(random.normal(10, 1, count)) for count in (10, 1000))
    assert few["low"] < 10 < few["high"]
    assert many["low"] < 10 < many["high"]
    assert many["high"] - many["low"] < (few["high"] - few["low"]) / 5


def test_the_same_values_have_the_same_interval() -> None:
    values = [1.0, 4.0, 2.0, 8.0]
    assert interval(values) == interval(values)


def test_a_ratio_is_taken_round_by_round_so_that_a_slower_machine_changes_nothing() -> None:
    base = [100.0, 110, 400, 900, 105]
    found = ratio([2 * ms for ms in base], base)
    assert found["value"] == 2
    assert found["low"] == pytest.approx(2 * (1 - BETWEEN_RUNS))
    assert found["high"] == pytest.approx(2 * (1 + BETWEEN_RUNS))


def test_the_stated_noise_of_a_ratio_grows_with_what_was_seen() -> None:
    found = ratio([100, 300, 200, 100, 400], [100, 100, 100, 100, 100])
    assert found["low"] == 1
    assert found["high"] >= 3
