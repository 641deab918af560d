"""The order of the queue, how full it is, and when there is room again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select

from castmate.errors import Overloaded
from castmate.jobs.database import Transaction
from castmate.jobs.predictions import State
from castmate.jobs.tables import predictions, queue

_LOOKED_BACK: Final = 20  # finished predictions whose duration tells when to try again
_RETRY_RANGE_S: Final = (1.0, 600.0)


@dataclass(frozen=True)
class Limits:
    """The rules of the queue.

    Attributes:
        queue_limit: How many predictions may wait.
        lease_s: How long a worker may be silent before its work is given to another.
        ageing_s: A waiting prediction climbs one priority each time this has passed.
        max_deaths: A prediction whose workers died this often fails.
    """

    queue_limit: int = 256
    lease_s: float = 15.0
    ageing_s: float = 60.0
    max_deaths: int = 3


@dataclass(frozen=True)
class Load:
    """What the queue holds now.

    Attributes:
        waiting: Predictions that nobody makes yet.
        running: Those that are being made.
        mean_s: How long the last ones took, or None before the first.
    """

    waiting: int
    running: int
    mean_s: float | None


def lock_queue(tx: Transaction) -> float:
    """Be alone with the order of the queue until the commit; gives its virtual time."""
    query = select(queue.c.virtual_time).where(queue.c.id == 1).with_for_update()
    return float(tx.connection.execute(query).scalar_one())


def count_waiting(tx: Transaction, limit: int) -> int:
    """How many wait, counted up to `limit`."""
    some = select(predictions.c.id).where(predictions.c.state == State.CREATED).limit(limit)
    return tx.connection.execute(select(func.count()).select_from(some.subquery())).scalar_one()


def load_of(tx: Transaction, limits: Limits) -> Load:
    """How much there is to do, and how long one takes."""
    return Load(count_waiting(tx, limits.queue_limit), _count_running(tx), _mean_s(tx))


def check_room(
    tx: Transaction, limits: Limits, key_name: str, max_unfinished: int | None = None
) -> None:
    """Refuse a submission where the queue is full, of all or of this key.

    Raises:
        Overloaded: It is, with when to try again.
    """
    waiting = count_waiting(tx, limits.queue_limit)
    if waiting >= limits.queue_limit:
        raise _overloaded(tx, waiting, f"{waiting} predictions are waiting, as many as may")
    if max_unfinished is None:
        return
    mine = select(func.count()).where(
        predictions.c.key_name == key_name,
        predictions.c.state.in_((State.CREATED, State.PROCESSING)),
    )
    count = tx.connection.execute(mine).scalar_one()
    if count >= max_unfinished:
        told = f"Key {key_name!r} has {count} predictions that are not finished, as many as may"
        raise _overloaded(tx, count, told)


def _overloaded(tx: Transaction, waiting: int, told: str) -> Overloaded:
    mean_s, slots = _mean_s(tx) or 1.0, max(1, _count_running(tx))
    # When a quarter of the queue is done, there is room again for a while.
    low, high = _RETRY_RANGE_S
    retry_after_s = min(max(low, waiting * mean_s / slots / 4), high)
    return Overloaded(
        f"{told}; nothing was charged. Try again in {retry_after_s:.0f} s.",
        retry_after_s=retry_after_s,
    )


def _count_running(tx: Transaction) -> int:
    running = select(func.count()).where(predictions.c.state == State.PROCESSING)
    return tx.connection.execute(running).scalar_one()


def _mean_s(tx: Transaction) -> float | None:
    """How long the last completed predictions took."""
    finished = (
        select((predictions.c.finished - predictions.c.started).label("seconds"))
        .where(predictions.c.state == State.COMPLETED)
        .order_by(predictions.c.finished.desc())
        .limit(_LOOKED_BACK)
        .subquery()
    )
    mean = tx.connection.execute(select(func.avg(finished.c.seconds))).scalar()
    return None if mean is None else float(mean)
