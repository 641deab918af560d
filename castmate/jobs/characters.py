"""Named characters: a handle that lasts, behind which their pictures are kept."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Executable, Row, delete, insert, select

from castmate.errors import InvalidRequest, Problem
from castmate.images import Reference
from castmate.jobs.database import Database, Transaction, check_storable
from castmate.jobs.queue import lock_queue
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

    def as_dict(self) -> dict[str, Any]:
        """The character as JSON; its pictures are the storage's business, so only their number."""
        return {
            "id": self.id,
            "key_name": self.key_name,
            "name": self.name,
            "num_pictures": len(self.pictures),
            "created": self.created,
        }


class Characters:
    """Every character of a ledger; no key sees those of another."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database, self._storage = database, storage

    async def create(
        self, name: str, references: Sequence[Reference], *, key_name: str
    ) -> Character:
        """Save a character; the same name and pictures again give the same one.

        Its pictures have names of their own, so that deleting one takes nothing from another.

        Raises:
            InvalidRequest: The name cannot be stored.
            Unavailable: The storage or the ledger cannot be reached.
        """
        check_storable("name", name)
        content = json.dumps([name, *(reference.sha256 for reference in references)])
        content_hash = hashlib.sha256(content.encode()).hexdigest()
        same = select(characters).where(
            characters.c.key_name == key_name, characters.c.content_hash == content_hash
        )
        if (known := await self._first(same)) is not None:
            return replace(known, known=True)
        character_id = PREFIX + secrets.token_hex(8)
        pictures = [f"{CHARACTERS}/{character_id}-{n}" for n in range(1, len(references) + 1)]
        for picture, reference in zip(pictures, references, strict=True):
            await self._storage.put(picture, reference.data)
        values = {
            "id": character_id,
            "key_name": key_name,
            "name": name,
            "content_hash": content_hash,
            "pictures": json.dumps(pictures),
        }

        def work(tx: Transaction) -> Character:
            lock_queue(tx)  # two calls at once make one; the pictures of the other are swept
            if row := tx.connection.execute(same).one_or_none():
                return replace(_character(row), known=True)
            made = insert(characters).returning(characters)
            return _character(tx.connection.execute(made, values | {"created": tx.now}).one())

        return await self._database.run(work)

    async def find(self, character_id: str, key_name: str) -> Character | None:
        """The character of a handle, if it belongs to the key."""
        return await self._first(
            select(characters).where(
                characters.c.id == character_id, characters.c.key_name == key_name
            )
        )

    async def list(self, key_name: str | None = None) -> Sequence[Character]:
        """Every character of a key, or of all, the newest first."""
        query = select(characters).order_by(characters.c.created.desc(), characters.c.id)
        if key_name is not None:
            query = query.where(characters.c.key_name == key_name)
        return await self._database.run(
            lambda tx: [_character(row) for row in tx.connection.execute(query)]
        )

    async def delete(self, character_id: str, key_name: str | None = None) -> Character:
        """Remove a character and its pictures; what was drawn from it stays.

        Args:
            character_id: Its handle.
            key_name: Who asks; None may remove everyone's.

        Returns:
            What was removed.

        Raises:
            InvalidRequest: There is none of this id and key.
            Unavailable: The ledger cannot be reached, and nothing was removed; or the storage
                cannot, and a sweep removes the pictures later.
        """
        query = delete(characters).where(characters.c.id == character_id)
        if key_name is not None:
            query = query.where(characters.c.key_name == key_name)
        removed = await self._first(query.returning(characters))
        if removed is None:
            told = f"there is no character {character_id!r}"
            raise InvalidRequest(
                [Problem("character_id", told, "an id of `castmate characters list`")]
            )
        for picture in removed.pictures:
            await self._storage.delete(picture)
        return removed

    async def _first(self, query: Executable) -> Character | None:
        def work(tx: Transaction) -> Character | None:
            row = tx.connection.execute(query).one_or_none()
            return None if row is None else _character(row)

        return await self._database.run(work)


def _character(row: Row[Any]) -> Character:
    pictures = tuple(json.loads(row.pictures))
    return Character(row.id, row.key_name, row.name, pictures, row.created)
