"""Webhooks in the ledger: who is called when a prediction ends, and what came of it.

Nothing is sent here. What is to be sent is kept with its prediction, so it outlives every process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, insert, or_, select, update

from castmate.jobs.database import Database, Transaction
from castmate.jobs.predictions import State
from castmate.jobs.tables import predictions, webhooks

TOPIC: Final = "webhooks"
_LEASE_S: Final = 60.0  # a process that takes longer to deliver has died
# No delivery is put off for longer: a later one was written before the clock was set back.
_LONGEST_WAIT_S: Final = 600.0


@dataclass(frozen=True)
class Delivery:
    """One webhook whose turn it is.

    Attributes:
        prediction_id: The prediction that has ended.
        url: Where to send it.
        base_url: Our address as the caller saw it, for the addresses in what is sent.
        tries: How often it was tried, this time included.
    """

    prediction_id: str
    url: str
    base_url: str
    tries: int


class Webhooks:
    """The webhooks of a ledger; several processes share the work."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def registration(self, url: str, base_url: str) -> Callable[[Transaction, str], None]:
        """Writes a webhook in the transaction of its submit: neither is there without the other."""

        def work(tx: Transaction, prediction_id: str) -> None:
            values = {
                "prediction_id": prediction_id,
                "url": url,
                "base_url": base_url,
                "tries": 0,
                "next_try": tx.now,
            }
            tx.connection.execute(insert(webhooks), values)
            tx.notify(TOPIC)

        return work

    async def take(self, limit: int) -> tuple[list[Delivery], bool]:
        """Up to `limit` deliveries that are due, and whether any may become due later.

        Raises:
            Unavailable: The ledger cannot be reached.
        """
        return await self._database.run(lambda tx: _take(tx, limit))

    async def delivered(self, delivery: Delivery) -> None:
        """Write down that it was taken.

        Raises:
            Unavailable: The ledger cannot be reached; it is sent again when its lease ends.
        """
        await self._end(delivery, None)

    async def failed(self, delivery: Delivery, reason: str, retry_in_s: float | None) -> None:
        """Write down that it was not taken; with no time for another try, it is given up.

        Raises:
            Unavailable: The ledger cannot be reached; it is sent again when its lease ends.
        """
        await self._end(delivery, reason, retry_in_s)

    async def _end(
        self, delivery: Delivery, reason: str | None, retry_in_s: float | None = None
    ) -> None:
        def work(tx: Transaction) -> None:
            values: dict[str, Any] = {"error": reason}
            if retry_in_s is None:
                values["finished"] = tx.now
            else:
                values["next_try"] = tx.now + retry_in_s
            this = webhooks.c.prediction_id == delivery.prediction_id
            tx.connection.execute(update(webhooks).where(this).values(values))

        await self._database.run(work)


def _take(tx: Transaction, limit: int) -> tuple[list[Delivery], bool]:
    unfinished = select(func.count()).where(webhooks.c.finished.is_(None))
    if not tx.connection.execute(unfinished).scalar_one():
        return [], False
    due_at = webhooks.c.next_try
    due = (
        select(webhooks)
        .join(predictions, predictions.c.id == webhooks.c.prediction_id)
        .where(
            webhooks.c.finished.is_(None),
            or_(due_at <= tx.now, due_at > tx.now + _LONGEST_WAIT_S),
            predictions.c.state.in_([state for state in State if state.final]),
        )
        .order_by(webhooks.c.next_try)
        .limit(limit)
        .with_for_update(of=webhooks, skip_locked=True)
    )
    rows = tx.connection.execute(due).all()
    taken = webhooks.c.prediction_id.in_([row.prediction_id for row in rows])
    tx.connection.execute(
        update(webhooks).where(taken).values(tries=webhooks.c.tries + 1, next_try=tx.now + _LEASE_S)
    )
    return [Delivery(row.prediction_id, row.url, row.base_url, row.tries + 1) for row in rows], True
