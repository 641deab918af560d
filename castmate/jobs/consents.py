"""What the owner of a key has agreed to pay: hosted pictures of a whole day, or of one call."""

from __future__ import annotations

import secrets
from typing import Final

from sqlalchemy import delete, insert, select

from castmate.jobs.database import Database, Transaction
from castmate.jobs.queue import lock_queue
from castmate.jobs.tables import consents, named_prices
from castmate.times import day_of

NAMED_FOR_S: Final = 15 * 60.0
_MICRO: Final = 1_000_000


class Consents:
    """Every agreement of a ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def given(self, key_name: str) -> bool:
        """Whether the owner has agreed for the whole of today (UTC)."""
        return await self._database.run(lambda tx: _given(tx, key_name))

    async def give(self, key_name: str) -> None:
        """Agree for the rest of the day."""

        def work(tx: Transaction) -> None:
            lock_queue(tx)  # two answers at once are one
            if not _given(tx, key_name):
                values = {"key_name": key_name, "day": day_of(tx.now)}
                tx.connection.execute(insert(consents), values)

        await self._database.run(work)

    async def withdraw(self, key_name: str) -> None:
        """Take back what was agreed for today; jobs that were submitted before may still cost."""

        def work(tx: Transaction) -> None:
            query = delete(consents).where(
                consents.c.key_name == key_name, consents.c.day == day_of(tx.now)
            )
            tx.connection.execute(query)

        await self._database.run(work)

    async def name_price(self, key_name: str, price_usd: float) -> None:
        """Remember that an agent was told a price, so that its next call may pay it."""

        def work(tx: Transaction) -> None:
            forgotten = named_prices.c.named < tx.now - NAMED_FOR_S
            tx.connection.execute(delete(named_prices).where(forgotten))
            values = {
                "id": secrets.token_hex(8),
                "key_name": key_name,
                "price_micro_usd": round(price_usd * _MICRO),
                "named": tx.now,
            }
            tx.connection.execute(insert(named_prices), values)

        await self._database.run(work)

    async def accept_price(self, key_name: str, price_usd: float) -> bool:
        """Use up a price that was named lately; False where none was that is high enough."""

        def work(tx: Transaction) -> bool:
            lock_queue(tx)  # of two calls at once one is paid
            lowest = (
                select(named_prices.c.id)
                .where(
                    named_prices.c.key_name == key_name,
                    named_prices.c.price_micro_usd >= round(price_usd * _MICRO),
                    named_prices.c.named >= tx.now - NAMED_FOR_S,
                )
                .order_by(named_prices.c.price_micro_usd, named_prices.c.named)
                .limit(1)
            )
            found = tx.connection.execute(lowest).scalar()
            used = delete(named_prices).where(named_prices.c.id == found)
            return found is not None and tx.connection.execute(used).rowcount == 1

        return await self._database.run(work)


def _given(tx: Transaction, key_name: str) -> bool:
    query = select(consents).where(
        consents.c.key_name == key_name, consents.c.day == day_of(tx.now)
    )
    return tx.connection.execute(query).one_or_none() is not None
