"""Named characters: a handle that lasts, behind which their pictures are kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from unicodedata import category

from sqlalchemy import Executable, Row, delete, insert, select, update

from castmate.errors import InvalidRequest, Problem
from castmate.images import Reference
from castmate.jobs.database import Database, Transaction, check_storable
from castmate.jobs.pictures import Brought, Pictures, release
from castmate.jobs.queue import lock_queue
from castmate.jobs.storage import CHARACTERS, DAY_S
from castmate.jobs.tables import character_pictures, characters, pictures
from castmate.shorten import shorten

PREFIX: Final = "chr_"
MAX_PICTURES: Final = 8
MAX_NAME: Final = 100
KEPT_S: Final = float(DAY_S)
"""How long what was discarded can be restored."""
_BREAKS: Final = ("Cc", "Zl", "Zp")  # controls, separators of lines and paragraphs


@dataclass(frozen=True)
class Character:
    """A saved subject.

    Attributes:
        id: Its handle.
        key_name: Whose it is.
        name: What its owner calls it.
        pictures: The names of its references in the storage, the best first.
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


def one_line(name: str) -> str:
    """The name of a character without the space around it.

    Raises:
        InvalidRequest: Nothing is left of it, or it would break the lists in which it is shown.
    """
    line = name.strip()
    if line and not any(category(letter) in _BREAKS for letter in line):
        return line
    message = f"{shorten(name, 60)!r} is not allowed"
    raise InvalidRequest([Problem("name", message, f"one line of 1..{MAX_NAME} characters")])


class Characters:
    """Every character of a ledger; no key sees those of another."""

    def __init__(self, database: Database, pictures: Pictures) -> None:
        self._database, self._pictures = database, pictures

    async def create(
        self, name: str, references: AsyncIterable[Reference], *, key_name: str
    ) -> Character:
        """Save a character; the same name and pictures again give the same one.

        Args:
            name: What its owner calls it.
            references: Its pictures, the best first; one that is several counts as so many. Each
                goes to the storage before the next one is asked for, so that one is held at a time.
            key_name: Whose it is.

        Raises:
            InvalidRequest: The name cannot be stored, or there are too many pictures.
            QuotaExceeded: The key keeps as many pictures as it may.
            Unavailable: The storage or the ledger cannot be reached.
        """
        check_storable("name", name)
        async with contextlib.AsyncExitStack() as stack:
            brought: dict[str, Brought] = {}
            hashes = []
            async for reference in references:
                for picture in reference.pictures:
                    hashes.append(sha256 := picture.sha256)
                    if len(hashes) > MAX_PICTURES:
                        raise _too_many()
                    if sha256 not in brought:
                        bringing = self._pictures.bringing(picture.data, sha256, key_name)
                        brought[sha256] = await stack.enter_async_context(bringing)
            return await self._save(name, [brought[sha256] for sha256 in hashes], key_name)

    async def _save(self, name: str, brought: Sequence[Brought], key_name: str) -> Character:
        content_hash = _hash_of(name, [picture.sha256 for picture in brought])
        same = select(characters).where(
            characters.c.key_name == key_name, characters.c.content_hash == content_hash
        )
        character_id = PREFIX + secrets.token_hex(8)

        def work(tx: Transaction) -> Character:
            lock_queue(tx)  # two calls at once make one
            if row := tx.connection.execute(same).one_or_none():
                _set(tx, row.id, discarded=None)
                return replace(_character(row), known=True)
            names = [self._pictures.take(tx, picture) for picture in brought]
            used = [{"character_id": character_id, "picture": one} for one in dict.fromkeys(names)]
            tx.connection.execute(insert(character_pictures), used)
            values = {
                "id": character_id,
                "key_name": key_name,
                "name": name,
                "content_hash": content_hash,
                "pictures": json.dumps(names),
                "created": tx.now,
            }
            made = insert(characters).returning(characters)
            return _character(tx.connection.execute(made, values).one())

        return await self._database.run(work)

    async def find(self, character_id: str, key_name: str) -> Character | None:
        """The character of a handle, if it belongs to the key."""
        return await self._first(
            select(characters).where(
                characters.c.id == character_id,
                characters.c.key_name == key_name,
                characters.c.discarded.is_(None),
            )
        )

    async def list(self, key_name: str | None = None) -> Sequence[Character]:
        """Every character of a key, or of all, the newest first."""
        query = select(characters).order_by(characters.c.created.desc(), characters.c.id)
        query = query.where(characters.c.discarded.is_(None))
        if key_name is not None:
            query = query.where(characters.c.key_name == key_name)
        return await self._database.run(
            lambda tx: [_character(row) for row in tx.connection.execute(query)]
        )

    async def hashes_of(self, character: Character) -> Sequence[str]:
        """The SHA-256 of each of its pictures."""
        return await self._database.run(lambda tx: _hashes(tx, character.pictures))

    async def with_pictures(self, hashes: Sequence[str], key_name: str) -> dict[str, Character]:
        """The newest character of a key that has each of some pictures, if one has it.

        Args:
            hashes: Their SHA-256.
            key_name: Whose characters.
        """
        of_character = character_pictures.c.character_id == characters.c.id
        query = (
            select(pictures.c.sha256, characters)
            .join_from(
                pictures, character_pictures, character_pictures.c.picture == pictures.c.name
            )
            .join(characters, of_character)
            .where(
                pictures.c.key_name == key_name,
                pictures.c.sha256.in_(hashes),
                characters.c.discarded.is_(None),
            )
            .order_by(characters.c.created, characters.c.id)
        )
        return await self._database.run(
            lambda tx: {row.sha256: _character(row) for row in tx.connection.execute(query)}
        )

    async def rename(self, character_id: str, name: str, key_name: str | None = None) -> Character:
        """Call a character something else.

        Args:
            character_id: Its handle, which it keeps.
            name: By `one_line`.
            key_name: Who asks; None may rename everyone's.

        Raises:
            InvalidRequest: There is none of this id and key, or the same pictures have this name
                already.
        """
        check_storable("name", name)

        def work(tx: Transaction) -> Character:
            lock_queue(tx)
            found = _character(_row(tx, character_id, key_name))
            content_hash = _hash_of(name, _hashes(tx, found.pictures))
            same = select(characters.c.id).where(
                characters.c.key_name == found.key_name,
                characters.c.content_hash == content_hash,
                characters.c.id != character_id,
            )
            if (other := tx.connection.execute(same).scalar()) is not None:
                message = f"{name!r} with the same pictures is {other} already"
                raise InvalidRequest([Problem("name", message, "another name")])
            _set(tx, character_id, name=name, content_hash=content_hash)
            return replace(found, name=name)

        return await self._database.run(work)

    async def discard(self, character_id: str, key_name: str | None = None) -> Character:
        """Put a character away; for a day `restore` brings it back, then it is removed.

        Raises:
            InvalidRequest: There is none of this id and key.
        """

        def work(tx: Transaction) -> Character:
            found = _character(_row(tx, character_id, key_name))
            _set(tx, character_id, discarded=tx.now)
            return found

        return await self._database.run(work)

    async def restore(self, character_id: str, key_name: str | None = None) -> Character:
        """Bring back a character that was discarded; one that was not stays as it is.

        Raises:
            InvalidRequest: There is none of this id and key any more.
        """

        def work(tx: Transaction) -> Character:
            found = _character(_row(tx, character_id, key_name, discarded=True))
            _set(tx, character_id, discarded=None)
            return found

        return await self._database.run(work)

    async def remove_discarded(self) -> int:
        """Remove what was discarded a day ago or earlier; gives how many there were."""
        old = select(characters.c.id)

        def work(tx: Transaction) -> list[str]:
            due = old.where(characters.c.discarded < tx.now - KEPT_S)
            return list(tx.connection.execute(due).scalars())

        ids = await self._database.run(work)
        for character_id in ids:
            with contextlib.suppress(InvalidRequest):  # another process was quicker
                await self.delete(character_id)
        return len(ids)

    async def delete(self, character_id: str, key_name: str | None = None) -> Character:
        """Remove a character at once, and those of its pictures that nothing else refers to.

        What was drawn from it stays.

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

        def work(tx: Transaction) -> tuple[Character, list[str]]:
            lock_queue(tx)
            row = tx.connection.execute(query.returning(characters)).one_or_none()
            if row is None:
                raise _unknown(character_id)
            removed = _character(row)
            of_it = character_pictures.c.character_id == character_id
            tx.connection.execute(delete(character_pictures).where(of_it))
            own = [name for name in removed.pictures if name.startswith(f"{CHARACTERS}/")]
            return removed, own + release(tx, removed.pictures)

        removed, unused = await self._database.run(work)
        await self._pictures.remove_files(unused)
        return removed

    async def _first(self, query: Executable) -> Character | None:
        def work(tx: Transaction) -> Character | None:
            row = tx.connection.execute(query).one_or_none()
            return None if row is None else _character(row)

        return await self._database.run(work)


def _row(
    tx: Transaction, character_id: str, key_name: str | None, discarded: bool = False
) -> Row[Any]:
    query = select(characters).where(characters.c.id == character_id)
    if key_name is not None:
        query = query.where(characters.c.key_name == key_name)
    if not discarded:
        query = query.where(characters.c.discarded.is_(None))
    row = tx.connection.execute(query.with_for_update()).one_or_none()
    if row is None:
        raise _unknown(character_id)
    return row


def _too_many() -> InvalidRequest:
    message = "name more pictures than a character may have"
    allowed = f"1..{MAX_PICTURES} pictures, those of named characters too"
    return InvalidRequest([Problem("references", message, allowed)])


def _unknown(character_id: str) -> InvalidRequest:
    message = f"there is no character {character_id!r}"
    return InvalidRequest([Problem("character_id", message, "an id of `castmate characters list`")])


def _set(tx: Transaction, character_id: str, **values: Any) -> None:
    changed = update(characters).where(characters.c.id == character_id)
    tx.connection.execute(changed.values(**values))


def _hashes(tx: Transaction, names: Sequence[str]) -> list[str]:
    """The hashes of stored pictures; of those from before there were any, their names."""
    query = select(pictures.c.name, pictures.c.sha256).where(pictures.c.name.in_(names))
    known = {row.name: row.sha256 for row in tx.connection.execute(query)}
    return [known.get(name, name) for name in names]


def _hash_of(name: str, hashes: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([name, *hashes]).encode()).hexdigest()


def _character(row: Row[Any]) -> Character:
    pictures = tuple(json.loads(row.pictures))
    return Character(row.id, row.key_name, row.name, pictures, row.created)
