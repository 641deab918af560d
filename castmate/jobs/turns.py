"""The queue itself: who may change its order, who waits in it, and the begin of an attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from castmate.jobs.database import Transaction
from castmate.jobs.predictions import State
from castmate.jobs.tables import attempts, predictions, queue


def lock_queue(tx: Transaction) -> float:
    """Be alone with the order of the queue until the commit; gives its virtual time."""
    query = select(queue.c.virtual_time).where(queue.c.id == 1).with_for_update()
    return float(tx.connection.execute(query).scalar_one())


def take(tx: Transaction, ids: Sequence[str], owner: str, lease_s: float) -> Sequence[Row[Any]]:
    """Begin an attempt of each waiting prediction; gives those that were, in the order of `ids`."""
    taken = (
        update(predictions)
        .where(predictions.c.id.in_(ids), predictions.c.state == State.CREATED)
        .values(
            state=State.PROCESSING,
            owner=owner,
            attempt=predictions.c.attempt + 1,
            started=tx.now,
            lease_until=tx.now + lease_s,
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


def count_waiting(tx: Transaction, limit: int) -> int:
    """How many wait, counted up to `limit`."""
    some = select(predictions.c.id).where(predictions.c.state == State.CREATED).limit(limit)
    return tx.connection.execute(select(func.count()).select_from(some.subquery())).scalar_one()
