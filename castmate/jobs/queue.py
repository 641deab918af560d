"""The queue: whose turn it is, how long it may be, and how an attempt begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, func, insert, literal, or_, select, update

from castmate.errors import InvalidRequest, Overloaded, Problem
from castmate.jobs import notify
from castmate.jobs.database import Transaction
from castmate.jobs.keys import LOCAL_KEY, share_of
from castmate.jobs.predictions import State, new_id
from castmate.jobs.tables import attempts, predictions, queue

_LOOKED_BACK: Final = 20  # finished predictions whose duration tells when to try again
_RETRY_RANGE_S: Final = (1.0, 600.0)


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


@dataclass(frozen=True)
class Limits:
    """The rules of the queue.

    Attributes:
        queue_limit: How many predictions may wait.
        lease_s: How long a worker may be silent before its work is given to another.
        max_deaths: A prediction whose workers died this often fails.
        wait_s: How long a prediction may wait for a client that can draw, from the first time that
            none could.
        stored_bytes_per_key: What a key may keep of pictures that it sent; None is no quota.
    """

    queue_limit: int = 256
    lease_s: float = 15.0
    max_deaths: int = 3
    wait_s: float = 3600.0
    stored_bytes_per_key: int | None = None


def in_state(*states: State) -> ColumnElement[bool]:
    """The state is one of these, written out: a bound value does not open a partial index."""
    return or_(
        *(predictions.c.state == literal(state.value, literal_execute=True) for state in states)
    )


def lock_queue(tx: Transaction) -> float:
    """Be alone with the order of the queue until the commit; gives its virtual time."""
    query = select(queue.c.virtual_time).where(queue.c.id == 1).with_for_update()
    return float(tx.connection.execute(query).scalar_one())


def enqueue(tx: Transaction, values: dict[str, Any], virtual_time: float, cost: float) -> Row[Any]:
    """Let a new prediction wait behind those of its key (start-time fair queueing)."""
    last = select(func.max(predictions.c.turn)).where(
        predictions.c.key_name == values["key_name"], in_state(State.CREATED)
    )
    turn = max(virtual_time, tx.connection.execute(last).scalar() or 0.0) + cost
    tx.notify(notify.WORK)
    return _insert(tx, values, turn)


def begin(
    tx: Transaction, values: dict[str, Any], turn: float, owner: str, lease_s: float
) -> Row[Any]:
    """Let `owner` begin with a new prediction at once."""
    return take(tx, [_insert(tx, values, turn).id], owner, lease_s)[0]


def take(tx: Transaction, ids: Sequence[str], owner: str, lease_s: float) -> Sequence[Row[Any]]:
    """Begin an attempt of each waiting prediction; gives those that were, in the order of `ids`."""
    taken = (
        update(predictions)
        .where(predictions.c.id.in_(ids), in_state(State.CREATED))
        .values(
            state=State.PROCESSING,
            owner=owner,
            attempt=predictions.c.attempt + 1,
            started=tx.now,
            lease_until=tx.now + lease_s,
            waits_for=None,
            not_before=None,
            progress=None,
        )
        .returning(predictions)
    )
    rows = sorted(tx.connection.execute(taken).all(), key=lambda row: ids.index(row.id))
    tried = [
        {"prediction_id": row.id, "attempt": row.attempt, "owner": owner, "started": tx.now}
        for row in rows
    ]
    if tried:
        tx.connection.execute(insert(attempts), tried)
    return rows


def check_waiting(tx: Transaction, limits: Limits, key_name: str, more: int = 1) -> None:
    """Refuse more predictions than may wait, of all or of this key.

    Raises:
        Overloaded: Too many do.
    """
    share = share_of(limits.queue_limit)
    needed = f", too many for {more} more" if more > 1 else ""
    if key_name != LOCAL_KEY and (mine := _count_waiting(tx, share, key_name)) + more > share:
        why = f"{mine} predictions of key {key_name!r} are waiting, its share of the queue"
        raise _overloaded(tx, mine, f"{why} is {share}{needed}" if needed else why)
    waiting = _count_waiting(tx, limits.queue_limit)
    if waiting + more > limits.queue_limit:
        why = needed or ", as many as may"
        raise _overloaded(tx, waiting, f"{waiting} predictions are waiting{why}")


def check_unfinished(tx: Transaction, key_name: str, allowed: int | None, more: int = 1) -> None:
    """Refuse more predictions of a key than it may have at a time; None allows any number.

    Raises:
        InvalidRequest: It may never have so many.
        Overloaded: Too many of them wait or run.
    """
    if allowed is None:
        return
    if more > max(1, allowed):
        message = f"{more} pictures are more than key {key_name!r} may have drawn at a time"
        hint = "Split the series into several calls."
        raise InvalidRequest([Problem("scenes", message, f"at most {allowed}", hint)])
    mine = select(func.count()).where(
        predictions.c.key_name == key_name,
        in_state(State.CREATED, State.PROCESSING),
    )
    count = tx.connection.execute(mine).scalar_one()
    if count + more > allowed:
        most = "as many as may" if more == 1 else f"and may have {allowed}: no {more} more"
        message = f"Key {key_name!r} has {count} predictions that are not finished, {most}"
        raise _overloaded(tx, count, message)


def load_of(tx: Transaction, limits: Limits) -> Load:
    """What the queue holds now; those who wait are counted up to the limit."""
    return Load(_count_waiting(tx, limits.queue_limit), _count_running(tx), _mean_s(tx))


def _insert(tx: Transaction, values: dict[str, Any], turn: float) -> Row[Any]:
    values = values | {"id": new_id(tx.now), "created": tx.now, "turn": turn}
    return tx.connection.execute(insert(predictions).returning(predictions), values).one()


def _overloaded(tx: Transaction, waiting: int, why: str) -> Overloaded:
    mean_s, slots = _mean_s(tx) or 1.0, max(1, _count_running(tx))
    # When a quarter of the queue is done, there is room again for a while.
    low, high = _RETRY_RANGE_S
    retry_after_s = min(max(low, waiting * mean_s / slots / 4), high)
    return Overloaded(
        f"{why}; nothing was charged. Try again in {retry_after_s:.0f} s.",
        retry_after_s=retry_after_s,
    )


def _count_waiting(tx: Transaction, limit: int, key_name: str | None = None) -> int:
    some = select(predictions.c.id).where(in_state(State.CREATED)).limit(limit)
    if key_name is not None:
        some = some.where(predictions.c.key_name == key_name)
    return tx.connection.execute(select(func.count()).select_from(some.subquery())).scalar_one()


def _count_running(tx: Transaction) -> int:
    running = select(func.count()).where(in_state(State.PROCESSING))
    return tx.connection.execute(running).scalar_one()


def _mean_s(tx: Transaction) -> float | None:
    """How long the last completed predictions took."""
    finished = (
        select((predictions.c.finished - predictions.c.started).label("seconds"))
        .where(predictions.c.finished.is_not(None), in_state(State.COMPLETED))
        .order_by(predictions.c.finished.desc())
        .limit(_LOOKED_BACK)
        .subquery()
    )
    mean = tx.connection.execute(select(func.avg(finished.c.seconds))).scalar()
    return None if mean is None else float(mean)
