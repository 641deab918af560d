"""One transaction at a time, on SQLite or PostgreSQL: the same synchronous code runs on both."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from castmate.jobs.notify import Hub

T = TypeVar("T")
Clock = Callable[[], float]


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
