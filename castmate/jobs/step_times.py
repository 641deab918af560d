"""How long denoise steps took lately, by the client that drew: what a page of operators plots."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

from castmate.jobs.database import Transaction
from castmate.jobs.predictions import State
from castmate.jobs.queue import in_state
from castmate.jobs.tables import predictions

_LOOKED_BACK: Final = 200  # predictions
_PER_DOUBLING: Final = 4  # buckets


@dataclass(frozen=True)
class StepTimes:
    """Of one client, for the last predictions that it has finished.

    Attributes:
        client: Its name.
        count: Predictions.
        median_ms: Of a step that was computed in full.
        p95_ms: The same; nineteen of twenty are quicker.
        histogram: How many predictions, by the milliseconds that their steps took at most.
    """

    client: str
    count: int
    median_ms: float
    p95_ms: float
    histogram: Mapping[float, int]


def step_times_of(tx: Transaction) -> list[StepTimes]:
    """Read them; a client that reports no steps is left out."""
    last = (
        select(predictions.c.result)
        .where(predictions.c.finished.is_not(None), in_state(State.COMPLETED))
        .order_by(predictions.c.finished.desc())
        .limit(_LOOKED_BACK)
    )
    found: dict[str, list[float]] = {}
    for text in tx.connection.execute(last).scalars():
        result = json.loads(text)
        if (milliseconds := _of_a_step(result)) is not None:
            found.setdefault(result["client"], []).append(milliseconds)
    return [_summed(client, sorted(times)) for client, times in sorted(found.items())]


def _of_a_step(result: Mapping[str, Any]) -> float | None:
    denoise_ms, steps = result["timings_ms"].get("denoise"), result.get("computed_steps")
    return denoise_ms / steps if denoise_ms and steps else None


def _summed(client: str, times: Sequence[float]) -> StepTimes:
    histogram = Counter(map(_bucket, times))
    return StepTimes(
        client,
        len(times),
        _quantile(times, 0.5),
        _quantile(times, 0.95),
        {edge: histogram[edge] for edge in sorted(histogram)},
    )


def _bucket(milliseconds: float) -> float:
    """The upper edge of the bucket of a time: four for each doubling."""
    place = math.ceil(math.log2(milliseconds) * _PER_DOUBLING - 1e-9)
    return float(round(2 ** (place / _PER_DOUBLING), 3))


def _quantile(times: Sequence[float], share: float) -> float:
    return round(times[math.ceil(share * len(times)) - 1], 3)
