"""One transaction at a time, on SQLite or PostgreSQL: the same synchronous code runs on both."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection, make_url
from sqlalchemy.exc import ArgumentError

from castmate.errors import SettingsError
from castmate.jobs.notify import Hub

T = TypeVar("T")
Clock = Callable[[], float]
_ALLOWED: Final = "sqlite:////path/to/a/file or postgresql://user:password@host/name"


class Durability(StrEnum):
    """What an acknowledged prediction survives."""

    PROCESS = "process"  # the death of every process of ours; a power cut may cost the last ones
    POWER = "power"  # a power cut too: everything is flushed to the disk first


class Transaction:
    """What a piece of work gets: a connection, the time, and a way to tell others."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self.connection = connection
        self.topics: list[str] = []
        self._clock = clock
        self._now: float | None = None

    @property
    def now(self) -> float:
        """Seconds since 1970, the same for the whole transaction."""
        if self._now is None:
            self._now = self._clock()
        return self._now

    def tell(self, topic: str) -> None:
        """Wake whoever listens to the topic, in every process, once this is committed."""
        self.topics.append(topic)


Work = Callable[[Transaction], T]


class Database(Protocol):
    """Where the ledger is."""

    @property
    def hub(self) -> Hub:
        """Told of every commit, of this process and of others."""
        ...

    async def run(self, work: Work[T]) -> T:
        """Run `work` in one transaction; on return what it wrote is durable.

        An exception in it leaves nothing behind.

        Raises:
            Unavailable: The database cannot be reached or written; the work may have been done.
        """
        ...

    async def aclose(self) -> None:
        """Finish what was begun and let go of the database."""
        ...


async def open_database(
    url: str, durability: Durability = Durability.PROCESS, clock: Clock | None = None
) -> Database:
    """Open the ledger's database and bring its tables up to date.

    Args:
        url: `sqlite:////folder/ledger.sqlite3` or `postgresql://user@host/name`.
        durability: For SQLite; PostgreSQL follows its own `synchronous_commit`.
        clock: The time, for tests; by default PostgreSQL's own, so that replicas agree.

    Raises:
        SettingsError: The URL is wrong, its driver is not installed, or the ledger is newer.
        Unavailable: It cannot be reached.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingsError(f"CASTMATE_DATABASE_URL: not a URL; allowed: {_ALLOWED}") from None
    kind = parsed.drivername.partition("+")[0]
    if kind == "sqlite" and parsed.database and parsed.database != ":memory:":
        from castmate.jobs.sqlite import SqliteDatabase

        return await SqliteDatabase.open(parsed.database, durability, clock)
    if kind in ("postgresql", "postgres"):
        from castmate.jobs.postgres import PostgresDatabase

        return await PostgresDatabase.open(parsed, clock)
    raise SettingsError(
        f"CASTMATE_DATABASE_URL: {parsed.drivername!r} cannot hold a ledger; allowed: {_ALLOWED}"
    )
