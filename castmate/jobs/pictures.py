"""The pictures that callers send: stored once for each key, counted against its quota.

A picture is known by its key and its content's hash. It has one file, whatever refers to it: an
upload's address, predictions, characters. The file goes with the last of them. Its name is drawn,
so one that is being removed is never named again. Whoever changes what refers to a picture holds
the queue's lock.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, delete, exists, func, insert, select, update

from castmate.errors import (
    IdempotencyConflict,
    InvalidRequest,
    Overloaded,
    QuotaExceeded,
    Unavailable,
)
from castmate.file_kinds import suffix_of
from castmate.jobs.database import Clock, Database, Transaction
from castmate.jobs.keys import LOCAL_KEY
from castmate.jobs.queue import lock_queue
from castmate.jobs.storage import INPUTS, UPLOADS_KEPT_S, Storage
from castmate.jobs.tables import character_pictures, pictures, predictions
from castmate.times import day_of

_BATCH: Final = 200
_MIB: Final = 2**20


@dataclass
class Brought:
    """A picture that lies in the storage, before anything refers to it.

    Attributes:
        name: Of its file.
        key_name: Whose it is.
        sha256: The hash of its bytes.
        num_bytes: Of its file.
        known: It was there before.
        kept_as: The file that is referred to, once one is.
    """

    name: str
    key_name: str
    sha256: str
    num_bytes: int
    known: bool
    kept_as: str | None = None


class Pictures:
    """Those of a ledger and its storage."""

    def __init__(
        self, database: Database, storage: Storage, clock: Clock, max_bytes: int | None = None
    ) -> None:
        """Nothing is read.

        Args:
            database: Where it is written who has which.
            storage: Where they are.
            clock: The time.
            max_bytes: What a key may keep; None is no quota. Callers without a key have none.
        """
        self._database, self._storage, self._clock = database, storage, clock
        self._max_bytes = max_bytes

    @contextlib.asynccontextmanager
    async def bringing(self, data: bytes, sha256: str, key_name: str) -> AsyncIterator[Brought]:
        """Have a picture in the storage; `take` inside the block makes it stay.

        Raises:
            QuotaExceeded: The key keeps as much as it may.
            Unavailable: The storage or the ledger cannot be reached.
        """
        brought = Brought("", key_name, sha256, len(data), known=False)
        row = await self._database.run(lambda tx: self._find_or_check(tx, brought))
        if row is not None:
            brought.name, brought.known = row.name, True
            yield brought
            return
        suffix = suffix_of(data[:1024]) or ""
        folder = f"{INPUTS}/{day_of(self._clock())}"
        brought.name = f"{folder}/{sha256}-{secrets.token_hex(4)}{suffix}"
        await self._storage.put(brought.name, data)
        try:
            yield brought
        except (IdempotencyConflict, InvalidRequest, Overloaded, QuotaExceeded):
            await self._storage.delete(brought.name)
            raise
        if brought.kept_as != brought.name:
            await self._storage.delete(brought.name)

    def take(self, tx: Transaction, brought: Brought, keep_s: float = 0.0) -> str:
        """Make a picture stay in the same transaction in which something begins to refer to it.

        Args:
            tx: Holds the queue's lock.
            brought: By `bringing`.
            keep_s: How long it stays even if nothing refers to it.

        Returns:
            The name of its file.

        Raises:
            QuotaExceeded: Others of the key have come meanwhile.
            Unavailable: It was there, and was removed meanwhile.
        """
        row = self._find_or_check(tx, brought)
        until = tx.now + keep_s
        if row is None:
            if brought.known:
                raise Unavailable(
                    "A picture of this call was deleted at this very moment; nothing was charged. "
                    "Try again."
                )
            _insert(tx, brought, until)
        elif keep_s:
            longer = update(pictures).where(pictures.c.name == row.name, pictures.c.until < until)
            tx.connection.execute(longer.values(until=until))
        brought.kept_as = brought.name if row is None else row.name
        return brought.kept_as

    async def keep_upload(self, data: bytes, key_name: str) -> str:
        """Keep an upload for a week at least; gives the name of its file.

        Raises:
            QuotaExceeded: The key keeps as much as it may.
            Unavailable: The storage or the ledger cannot be reached.
        """

        def work(tx: Transaction) -> str:
            lock_queue(tx)
            return self.take(tx, brought, UPLOADS_KEPT_S)

        async with self.bringing(data, _hash(data), key_name) as brought:
            return await self._database.run(work)

    async def keep_upload_as(self, name: str, data: bytes, key_name: str) -> None:
        """Keep an upload whose address was given before its bytes came.

        Raises:
            QuotaExceeded: The key keeps as much as it may.
            Unavailable: The storage or the ledger cannot be reached.
        """
        brought = Brought(name, key_name, _hash(data), len(data), known=False)

        def work(tx: Transaction) -> None:
            lock_queue(tx)
            self._check_quota(tx, brought)
            _insert(tx, brought, tx.now + UPLOADS_KEPT_S)

        await self._database.run(lambda tx: self._check_quota(tx, brought))
        await self._storage.put(name, data)
        try:
            await self._database.run(work)
        except QuotaExceeded:
            await self._storage.delete(name)
            raise

    async def find(self, sha256: str, key_name: str) -> str | None:
        """The file of a picture that a key has sent, by the hash of its bytes; None: it has not."""
        same = select(pictures.c.name).where(
            pictures.c.key_name == key_name, pictures.c.sha256 == sha256
        )
        first = same.order_by(pictures.c.name).limit(1)
        return await self._database.run(
            lambda tx: tx.connection.execute(first).scalar_one_or_none()
        )

    async def remove_unused(self) -> int:
        """Remove pictures to which nothing refers any more; gives how many there were."""
        removed = 0
        while names := await self._database.run(_some_unused):
            names = await self._database.run(functools.partial(_release_locked, names=names))
            await self.remove_files(names)
            removed += len(names)
        return removed

    async def remove_files(self, names: Sequence[str]) -> None:
        """Remove the files of what `release` gave."""
        for name in names:
            await self._storage.delete_picture(name)

    def _find_or_check(self, tx: Transaction, brought: Brought) -> Row[Any] | None:
        same = select(pictures).where(
            pictures.c.key_name == brought.key_name, pictures.c.sha256 == brought.sha256
        )
        row = tx.connection.execute(same.order_by(pictures.c.name).limit(1)).one_or_none()
        if row is None:
            self._check_quota(tx, brought)
        return row

    def _check_quota(self, tx: Transaction, brought: Brought) -> None:
        if self._max_bytes is None or brought.key_name == LOCAL_KEY:
            return
        total = select(func.coalesce(func.sum(pictures.c.num_bytes), 0)).where(
            pictures.c.key_name == brought.key_name
        )
        kept = int(tx.connection.execute(total).scalar_one())
        if kept + brought.num_bytes > self._max_bytes:
            raise QuotaExceeded(
                f"Key {brought.key_name!r} keeps {kept / _MIB:.1f} MiB of pictures on this server, "
                f"and may keep {self._max_bytes / _MIB:g}: this one has "
                f"{brought.num_bytes / _MIB:.1f}. Delete predictions or characters that you no "
                "longer need; an upload that nothing uses goes after a week. The operator may "
                "raise CASTMATE_STORED_MB_PER_KEY."
            )


def release(tx: Transaction, names: Sequence[str]) -> list[str]:
    """Forget those pictures to which nothing refers any more; gives what files to remove.

    Args:
        tx: Holds the queue's lock.
        names: Of the files to which something did.
    """
    unused = delete(pictures).where(pictures.c.name.in_(names), *_unused(tx))
    return list(tx.connection.execute(unused.returning(pictures.c.name)).scalars())


def _some_unused(tx: Transaction) -> list[str]:
    """Looked for without the lock: there may be many rows to look at."""
    some = select(pictures.c.name).where(*_unused(tx)).limit(_BATCH)
    return list(tx.connection.execute(some).scalars())


def _release_locked(tx: Transaction, names: Sequence[str]) -> list[str]:
    lock_queue(tx)
    return release(tx, names)


def _unused(tx: Transaction) -> tuple[ColumnElement[bool], ...]:
    return (
        pictures.c.until <= tx.now,
        ~exists().where(predictions.c.input == pictures.c.name),
        ~exists().where(character_pictures.c.picture == pictures.c.name),
    )


def _insert(tx: Transaction, brought: Brought, until: float) -> None:
    values = {
        "name": brought.name,
        "key_name": brought.key_name,
        "sha256": brought.sha256,
        "num_bytes": brought.num_bytes,
        "until": until,
    }
    tx.connection.execute(insert(pictures), values)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
