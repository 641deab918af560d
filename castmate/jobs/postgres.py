"""The ledger in PostgreSQL, shared by replicas on several machines."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final, Self
from uuid import uuid4

from sqlalchemy import URL, Connection, Double, func, literal_column, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from castmate.errors import InvalidRequest, Problem, SettingsError, Unavailable
from castmate.jobs.database import Clock, T, Transaction, Work, refuse_unstorable
from castmate.jobs.migrations import migrate
from castmate.jobs.notify import Hub

_log = logging.getLogger(__name__)

CHANNEL: Final = "castmate"
LOOK_S: Final = 15.0  # in case a notification is lost with its connection
POLL_S: Final = 1.0  # behind a pooler, where nobody can listen
CONNECTIONS: Final = 16  # at most, and one that listens
RECONNECT_S: Final = 0.5
# A replica that is frozen within a transaction must not hold its locks for ever, and one whose
# machine is gone not its sessions.
_SESSION: Final = {
    "application_name": "castmate",
    "idle_in_transaction_session_timeout": "10000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
# A pooler in transaction mode takes no settings of a session, and what was prepared in one session
# is not there in the next; a name that is used once cannot meet another statement.
_POOLED: Final = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: f"castmate_{uuid4().hex}",
}
_ROLLED_BACK: Final = {"40001", "40P01"}  # serialization failure, deadlock: certainly not done
_DATA: Final = "22"  # the class of errors of values, such as what the encoding does not have
_TRIES: Final = 5
ANSWER_S: Final = 30.0


class PostgresDatabase:
    """A ledger for many processes on many machines."""

    def __init__(self, engine: AsyncEngine, clock: Clock | None) -> None:
        self.hub = Hub()
        self._engine, self._clock = engine, clock
        self._listener: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: URL, clock: Clock | None = None, *, pooled: bool = False) -> Self:
        """Connect, and begin to listen.

        Args:
            url: Of the database.
            clock: The time; by default the server's own.
            pooled: Whether a pooler is between, which gives each transaction another session.

        Raises:
            SettingsError: The driver is not installed, or a newer release wrote the ledger.
            Unavailable: The server cannot be reached.
        """
        try:
            engine = create_async_engine(
                url.set(drivername="postgresql+asyncpg"),
                pool_size=CONNECTIONS // 2,
                max_overflow=CONNECTIONS // 2,
                pool_pre_ping=True,
                connect_args={
                    "timeout": 10,
                    "command_timeout": ANSWER_S,
                    **(_POOLED if pooled else {"server_settings": _SESSION}),
                },
            )
        except ImportError:
            raise SettingsError(
                "CASTMATE_DATABASE_URL: PostgreSQL needs a driver that is not installed; run "
                "`pip install 'castmate[postgres]'`."
            ) from None
        refuse_unstorable(engine.sync_engine)
        database = cls(engine, clock)
        try:
            await database.run(lambda transaction: migrate(transaction.connection))
            listening = asyncio.Event()
            listen = database._look() if pooled else database._listen(listening)
            database._listener = asyncio.create_task(listen)
            if pooled:
                return database
            async with asyncio.timeout(ANSWER_S):
                await listening.wait()
        except TimeoutError:
            await database.aclose()
            raise Unavailable("The ledger's database does not let anyone listen.") from None
        except BaseException:
            await database.aclose()
            raise
        return database

    async def run(self, work: Work[T]) -> T:
        """See `Database.run`."""
        for left in reversed(range(_TRIES)):
            try:
                async with self._begun() as connection:
                    value, topics = await connection.run_sync(self._work, work)
            except (DBAPIError, OSError) as error:
                state = getattr(getattr(error, "orig", None), "sqlstate", None)
                if state in _ROLLED_BACK and left:
                    continue
                if str(state).startswith(_DATA):
                    allowed = f"what the ledger's database can store ({_reason(error)})"
                    refused = Problem("request", "has a value that cannot be stored", allowed)
                    raise InvalidRequest([refused]) from None
                raise Unavailable(f"The ledger's database failed: {_reason(error)}.") from error
            for topic in topics:  # those who wait here need not wait for the server's word
                self.hub.notify(topic)
            return value
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        """See `Database.aclose`."""
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
        await self._engine.dispose()

    @contextlib.asynccontextmanager
    async def _begun(self) -> AsyncIterator[AsyncConnection]:
        async with contextlib.AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self._engine.begin())
            except Exception as error:  # from a connect, the driver's own errors come as they are
                reason = _reason(error)
                if "startup parameter" in reason:
                    reason += ". A pooler is between: set CASTMATE_DATABASE_POOLER=true"
                raise Unavailable(f"The ledger's database cannot be reached: {reason}.") from error
            yield connection

    def _work(self, connection: Connection, work: Work[T]) -> tuple[T, list[str]]:
        transaction = Transaction(connection, self._clock or (lambda: _server_time(connection)))
        value = work(transaction)
        for topic in transaction.topics:
            connection.execute(select(func.pg_notify(CHANNEL, topic)))
        return value, transaction.topics

    async def _listen(self, listening: asyncio.Event) -> None:
        """Pass on what other replicas announce, for ever."""
        while True:
            try:
                async with self._engine.connect() as connection:
                    driver: Any = (await connection.get_raw_connection()).driver_connection
                    lost = asyncio.Event()
                    driver.add_termination_listener(lambda _, lost=lost: lost.set())
                    await driver.add_listener(CHANNEL, self._hear)
                    listening.set()
                    self.hub.notify_all()  # nobody knows what was announced meanwhile
                    while not lost.is_set():
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(lost.wait(), LOOK_S)
                        self.hub.notify_all()
                    await connection.invalidate()
            except Exception as error:  # a restart of the server, whatever the driver calls it
                _log.warning("not listening to other replicas: %s", _reason(error))
                await asyncio.sleep(RECONNECT_S)

    async def _look(self) -> None:
        """Let everyone look again and again, for ever: nobody says when something has changed."""
        while True:
            await asyncio.sleep(POLL_S)
            self.hub.notify_all()

    def _hear(self, connection: object, process: int, channel: str, topic: object) -> None:
        self.hub.notify(str(topic))


def _server_time(connection: Connection) -> float:
    """The server's clock, which all replicas share."""
    epoch = literal_column("extract(epoch from clock_timestamp())::float8", Double)
    return float(connection.execute(select(epoch)).scalar_one())


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error)
