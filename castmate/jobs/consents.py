"""Whether a key's owner has agreed today that hosted pictures may be paid."""

from __future__ import annotations

from sqlalchemy import insert, select

from castmate.jobs.database import Database, Transaction
from castmate.jobs.queue import lock_queue
from castmate.jobs.storage import day_of
from castmate.jobs.tables import consents


class Consents:
    """Every agreement of a ledger; each holds until the day (UTC) ends."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def given(self, key_name: str) -> bool:
        """Whether it was given today."""
        return await self._database.run(lambda tx: _given(tx, key_name))

    async def give(self, key_name: str) -> None:
        """Remember it for the rest of the day."""

        def work(tx: Transaction) -> None:
            lock_queue(tx)  # two answers at once are one
            if not _given(tx, key_name):
                values = {"key_name": key_name, "day": day_of(tx.now)}
                tx.connection.execute(insert(consents), values)

        await self._database.run(work)


def _given(tx: Transaction, key_name: str) -> bool:
    query = select(consents).where(
        consents.c.key_name == key_name, consents.c.day == day_of(tx.now)
    )
    return tx.connection.execute(query).one_or_none() is not None
