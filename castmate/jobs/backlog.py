"""What is not finished yet: the numbers by which a fleet is scaled, the same for every gateway."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, select

from castmate.jobs.database import Transaction
from castmate.jobs.predictions import State
from castmate.jobs.queue import in_state
from castmate.jobs.tables import predictions

_LOOKED_BACK: Final = 20
_UNKNOWN_S: Final = 1.0  # of work in a prediction, before the first one is finished


@dataclass(frozen=True)
class Backlog:
    """What the ledger holds that is not finished.

    Attributes:
        waiting: Predictions that nobody draws yet.
        running: Those that a worker has.
        oldest_wait_s: How long the first of those that wait has been waiting.
        drawing_s: How long it takes to draw one, by the last that were finished.
    """

    waiting: int
    running: int
    oldest_wait_s: float
    drawing_s: float

    @property
    def work_s(self) -> float:
        """About how long one instance of the model would take to draw all of them.

        What runs counts as if it had just begun: it may still wait in Triton's queue.
        """
        return (self.waiting + self.running) * self.drawing_s


def backlog_of(tx: Transaction) -> Backlog:
    """Count it; what is finished costs nothing, however much it is."""
    waiting = select(func.count(), func.min(predictions.c.created)).where(in_state(State.CREATED))
    count, oldest = tx.connection.execute(waiting).one()
    running = select(func.count()).where(in_state(State.PROCESSING))
    return Backlog(
        count,
        tx.connection.execute(running).scalar_one(),
        max(0.0, tx.now - oldest) if oldest is not None else 0.0,
        _drawing_s(tx),
    )


def _drawing_s(tx: Transaction) -> float:
    last = (
        select(predictions.c.result)
        .where(predictions.c.finished.is_not(None), in_state(State.COMPLETED))
        .order_by(predictions.c.finished.desc())
        .limit(_LOOKED_BACK)
    )
    seconds = [_seconds(json.loads(text)) for text in tx.connection.execute(last).scalars()]
    return sum(seconds) / len(seconds) if seconds else _UNKNOWN_S


def _seconds(result: Mapping[str, Any]) -> float:
    """Of a result; the time in the queue of a Triton server is no work."""
    timings_ms = result["timings_ms"]
    milliseconds: float = timings_ms.get("total", 0.0) - timings_ms.get("queue", 0.0)
    return max(0.0, milliseconds) / 1000
