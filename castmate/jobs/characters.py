"""Named characters: a handle that lasts, behind which their pictures are kept."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, insert, select

from castmate.images import Reference
from castmate.jobs.database import Database, Transaction
from castmate.jobs.order import lock_queue
from castmate.jobs.storage import CHARACTERS, Storage
from castmate.jobs.tables import characters

PREFIX: Final = "chr_"
MAX_PICTURES: Final = 8


@dataclass(frozen=True)
class Character:
    """A saved subject.

    Attributes:
        id: Its handle.
        key_name: Whose it is.
        name: What its owner calls it.
        pictures: The names of its references in the storage; the first is drawn from.
        created: Seconds since 1970.
        known: It was there before; only what `Characters.create` returns says so.
    """

    id: str
    key_name: str
    name: str
    pictures: tuple[str, ...]
    created: float
    known: bool = False


class Characters:
    """Every character of a ledger; no key sees those of another."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database, self._storage = database, storage

    async def create(
        self, name: str, references: Sequence[Reference], *, key_name: str
    ) -> Character:
        """Save a character; the same name and pictures again give the same one.

        Raises:
            Unavailable: The storage or the ledger cannot be reached.
        """
        pictures = []
        for reference in references:
            pictures.append(f"{CHARACTERS}/{reference.sha256}")
            if not await self._storage.exists(pictures[-1]):
                await self._storage.put(pictures[-1], reference.data)
        content = json.dumps([name, *pictures]).encode()
        values = {
            "id": PREFIX + secrets.token_hex(8),
            "key_name": key_name,
            "name": name,
            "content_hash": hashlib.sha256(content).hexdigest(),
            "pictures": json.dumps(pictures),
        }
        same = select(characters).where(
            characters.c.key_name == key_name,
            characters.c.content_hash == values["content_hash"],
        )

        def work(tx: Transaction) -> Character:
            lock_queue(tx)  # two calls at once make one
            if row := tx.connection.execute(same).one_or_none():
                return _character(row, known=True)
            made = insert(characters).returning(characters)
            return _character(tx.connection.execute(made, values | {"created": tx.now}).one())

        return await self._database.run(work)

    async def find(self, character_id: str, key_name: str) -> Character | None:
        """The character of a handle, if it belongs to the key."""
        query = select(characters).where(
            characters.c.id == character_id, characters.c.key_name == key_name
        )

        def work(tx: Transaction) -> Character | None:
            row = tx.connection.execute(query).one_or_none()
            return None if row is None else _character(row)

        return await self._database.run(work)

    async def list(self, key_name: str) -> Sequence[Character]:
        """Every character of a key, the newest first."""
        query = (
            select(characters)
            .where(characters.c.key_name == key_name)
            .order_by(characters.c.created.desc(), characters.c.id)
        )
        return await self._database.run(
            lambda tx: [_character(row) for row in tx.connection.execute(query)]
        )


def _character(row: Row[Any], known: bool = False) -> Character:
    pictures = tuple(json.loads(row.pictures))
    return Character(row.id, row.key_name, row.name, pictures, row.created, known)
