"""Statistics of a sample and how far to trust them: percentiles, bootstrap intervals, ratios."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
BETWEEN_RUNS = 0.05
"""Part of a ratio by which a second run may differ for reasons that no run shows in itself: where a
process lies in memory, what else the machine does."""

Values = Sequence[float] | NDArray[np.float64]


def percentiles(values: Values) -> dict[str, float]:
    """p50, p90, p95, p99, minimum, maximum and count of some milliseconds.

    With fewer than 1 / (1 - p) values, percentile p is the largest of them.
    """
    p90, p95, p99 = np.percentile(values, [90, 95, 99], method="higher")
    figures = {"p50_ms": np.median(values), "p90_ms": p90, "p95_ms": p95, "p99_ms": p99}
    figures |= {"min_ms": min(values), "max_ms": max(values)}
    return {name: round(float(value), 3) for name, value in figures.items()} | {"runs": len(values)}


def interval(
    values: Values, statistic: Callable[..., NDArray[np.float64]] = np.mean, *, digits: int = 4
) -> dict[str, float]:
    """A statistic with its 95 % bootstrap interval, deterministic for the same values.

    Args:
        values: One for each picture or round; differences are already paired.
        statistic: A function of an axis, such as `numpy.mean` or `numpy.median`.
        digits: Decimal places of the result.
    """
    sample = np.asarray(values, np.float64)
    drawn = np.random.default_rng(0).integers(0, len(sample), (RESAMPLES, len(sample)))
    low, high = np.percentile(statistic(sample[drawn], axis=1), [2.5, 97.5])
    middle = float(statistic(sample, axis=0))
    return {
        "value": round(middle, digits),
        "low": round(float(low), digits),
        "high": round(float(high), digits),
    }


def ratio(times: Values, others: Values) -> dict[str, float]:
    """How many times longer `times` are than `others`, round by round, with the expected noise.

    Args:
        times: One contender's times, one for each round.
        others: The other contender's times in the same rounds.

    Returns:
        `value`, the median of the rounds' ratios; `low` and `high`, where a second run is expected:
        its bootstrap interval, and at least `BETWEEN_RUNS` to either side.
    """
    found = interval(np.asarray(times) / np.asarray(others), np.median)
    middle = found["value"]
    return {
        "value": middle,
        "low": round(min(found["low"], middle * (1 - BETWEEN_RUNS)), 4),
        "high": round(max(found["high"], middle * (1 + BETWEEN_RUNS)), 4),
    }
