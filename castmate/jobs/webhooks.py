"""Whom to notify that a prediction has ended: kept with it, until it was delivered or given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, insert, select, update

from castmate.jobs.database import Database, Transaction
from castmate.jobs.predictions import State
from castmate.jobs.tables import predictions, webhooks

TOPIC: Final = "webhooks"
_LEASE_S: Final = 60.0  # a process that takes longer to deliver has died


@dataclass(frozen=True)
class Delivery:
    """One that is due.

    Attributes:
        prediction_id: What has ended.
        url: The receiver.
        base_url: Our address as the submitter saw it.
        tries: How often it was tried, this time included.
    """

    prediction_id: str
    url: str
    base_url: str
    tries: int


class Webhooks:
    """Every webhook of a ledger; several processes share the work."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @staticmethod
    def adding(url: str, base_url: str) -> Callable[[Transaction, str], None]:
        """Work that writes a webhook in the transaction that submits its prediction."""

        def work(tx: Transaction, prediction_id: str) -> None:
            values = {
                "prediction_id": prediction_id,
                "url": url,
                "base_url": base_url,
                "tries": 0,
                "next_try": tx.now,
            }
            tx.connection.execute(insert(webhooks), values)
            tx.tell(TOPIC)

        return work

    async def take(self, limit: int) -> tuple[list[Delivery], bool]:
        """Up to `limit` deliveries that are due, and whether any may become due later.

        Raises:
            Unavailable: The database cannot be reached.
        """
        return await self._database.run(lambda tx: _take(tx, limit))

    async def note(self, due: Delivery, reason: str | None, next_try_s: float | None) -> None:
        """Write down what became of a delivery.

        Args:
            due: Which.
            reason: Why it was not taken; None where it was.
            next_try_s: When to try again, seconds from now; None ends it.

        Raises:
            Unavailable: The database cannot be reached.
        """

        def work(tx: Transaction) -> None:
            values: dict[str, Any] = {"error": reason}
            if next_try_s is None:
                values["finished"] = tx.now
            else:
                values["next_try"] = tx.now + next_try_s
            this = webhooks.c.prediction_id == due.prediction_id
            tx.connection.execute(update(webhooks).where(this).values(values))

        await self._database.run(work)


def _take(tx: Transaction, limit: int) -> tuple[list[Delivery], bool]:
    unfinished = select(func.count()).where(webhooks.c.finished.is_(None))
    if not tx.connection.execute(unfinished).scalar_one():
        return [], False
    query = (
        select(webhooks)
        .join(predictions, predictions.c.id == webhooks.c.prediction_id)
        .where(
            webhooks.c.finished.is_(None),
            webhooks.c.next_try <= tx.now,
            predictions.c.state.in_([state for state in State if state.final]),
        )
        .order_by(webhooks.c.next_try)
        .limit(limit)
        .with_for_update(of=webhooks, skip_locked=True)
    )
    rows = tx.connection.execute(query).all()
    taken = webhooks.c.prediction_id.in_([row.prediction_id for row in rows])
    tx.connection.execute(
        update(webhooks).where(taken).values(tries=webhooks.c.tries + 1, next_try=tx.now + _LEASE_S)
    )
    return [Delivery(row.prediction_id, row.url, row.base_url, row.tries + 1) for row in rows], True
