"""One transaction at a time, on SQLite or PostgreSQL: the same synchronous code runs on both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine, event

from castmate.errors import InvalidRequest, Problem
from castmate.jobs.notify import Hub

T = TypeVar("T")
Clock = Callable[[], float]


class Durability(StrEnum):
    """What an acknowledged prediction survives."""

    PROCESS = "process"  # the death of every process of ours; a power cut may cost the last ones
    POWER = "power"  # a power cut too: everything is flushed to the disk first


def refuse_unstorable(engine: Engine) -> None:
    """Let statements with text that one of the two databases does not take fail on both alike.

    They fail with `InvalidRequest`: such text comes from callers, in an id or a name.
    """
    event.listen(engine, "before_cursor_execute", _check_parameters)


def check_storable(parameter: str, text: str) -> None:
    """Refuse text that one of the databases does not take.

    PostgreSQL knows no NUL, and UTF-8 no half of a surrogate pair.

    Raises:
        InvalidRequest: Names the parameter.
    """
    try:
        text.encode()
        wrong = "a NUL character" if "\0" in text else ""
    except UnicodeEncodeError:
        wrong = "half of a surrogate pair"
    if wrong:
        raise InvalidRequest([Problem(parameter, f"has {wrong}", "other characters")])


def _check_parameters(
    connection: Connection, cursor: Any, statement: str, parameters: Any, *_: object
) -> None:
    for values in parameters if isinstance(parameters, list) else (parameters,):
        given: Iterable[object] = values.values() if isinstance(values, Mapping) else values
        for value in given:
            if isinstance(value, str):
                check_storable("request", value)


class Transaction:
    """What a piece of work gets: a connection, the time, and a way to notify others."""

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

    def notify(self, topic: str) -> None:
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
