"""The ledger in a file: one thread writes, and commits together what came together."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from castmate.errors import CastmateError, SettingsError, Unavailable
from castmate.files import make_private_file, make_private_folder
from castmate.jobs.database import Clock, Durability, T, Transaction, Work, refuse_unstorable
from castmate.jobs.migrations import migrate
from castmate.jobs.notify import Hub

MAX_BATCH: Final = 256
LOOK_S: Final = 0.05  # how soon a commit of another process is noticed
ANSWER_S: Final = 30.0


@dataclass
class _Job:
    work: Work[Any]
    answer: asyncio.Future[Any]
    topics: list[str]
    value: Any = None
    error: Exception | None = None


class SqliteDatabase:
    """A ledger for the processes of one machine.

    Every write waits for a lock on the file beside the database. So processes take turns in the
    order in which they came, and SQLite before 3.51.3 cannot run into its WAL-reset bug, which
    needs two connections that write at once.
    """

    def __init__(self, path: Path, durability: Durability, clock: Clock) -> None:
        self.hub = Hub()
        self._path, self._durability, self._clock = path, durability, clock
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="castmate-ledger", daemon=True)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed = False

    @classmethod
    async def open(
        cls, path: str, durability: Durability = Durability.PROCESS, clock: Clock | None = None
    ) -> Self:
        """Open or make the file.

        Raises:
            SettingsError: Its folder cannot be written, it is no ledger or of a newer release.
        """
        database = cls(Path(path), durability, clock or time.time)
        database._thread.start()
        await database._opened
        return database

    async def run(self, work: Work[T]) -> T:
        """See `Database.run`."""
        if self._closed:
            raise Unavailable("The ledger is closed.")
        answer: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(work, answer, []))
        try:
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError:
            raise Unavailable(
                f"The ledger {self._path} did not answer within {ANSWER_S:g} s: its disk is stuck, "
                "or a process that is stopped holds its lock."
            ) from None

    async def aclose(self) -> None:
        """See `Database.aclose`."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        try:
            with self._locked():
                engine = self._connect()
                with engine.begin() as connection:
                    migrate(connection)
        except (OSError, SQLAlchemyError, CastmateError) as error:
            self._soon(_answer, self._opened, None, self._cannot_open(error))
            return
        self._soon(_answer, self._opened, None, None)
        with engine.connect() as connection:
            seen = _data_version(connection)
            while (batch := self._next_batch()) is not None:
                if batch:
                    self._commit(connection, batch)
                with contextlib.suppress(sqlite3.Error):  # the next write tells what is wrong
                    if (version := _data_version(connection)) != seen:
                        seen = version
                        self._soon(self.hub.notify_all)
        with self._locked():  # the last one to close writes the log back into the file
            engine.dispose()

    def _connect(self) -> Engine:
        make_private_file(self._path)  # SQLite gives its log and its index the same mode
        # One connection for ever, used by this thread alone.
        engine = create_engine(
            URL.create("sqlite", database=str(self._path)),  # quoted: a name may hold ?, # and %
            poolclass=StaticPool,
            connect_args={"timeout": ANSWER_S, "check_same_thread": False, "isolation_level": None},
        )
        refuse_unstorable(engine)
        event.listen(engine, "connect", self._set_up)
        event.listen(
            engine, "begin", lambda connection: connection.exec_driver_sql("begin immediate")
        )
        return engine

    def _set_up(self, connection: Any, record: object) -> None:
        level = "full" if self._durability is Durability.POWER else "normal"
        for pragma in ("journal_mode = wal", f"synchronous = {level}", "foreign_keys = on"):
            connection.execute(f"pragma {pragma}")

    def _next_batch(self) -> list[_Job] | None:
        """What is waiting; empty where nothing came for a while, None at the end."""
        try:
            first = self._jobs.get(timeout=LOOK_S)
        except queue.Empty:
            return []
        if first is None:
            return None
        batch = [first]
        while len(batch) < MAX_BATCH and not self._jobs.empty():
            job = self._jobs.get()
            if job is None:
                self._jobs.put(None)  # the end, after this batch
                break
            batch.append(job)
        return batch

    def _commit(self, connection: Connection, batch: list[_Job]) -> None:
        """Run a batch in one transaction, each job within its own savepoint."""
        failure: CastmateError | None = None
        try:
            with self._locked(), connection.begin():
                for job in batch:
                    self._attempt(connection, job)
        except (OSError, SQLAlchemyError, SettingsError) as error:
            # Of the whole batch nothing is left: SQLite may have rolled back on its own.
            failure = Unavailable(f"The ledger {self._path} cannot be written: {_reason(error)}.")
        for job in batch:
            error_or_none = failure or job.error
            self._soon(_answer, job.answer, job.value, error_or_none)
            for topic in () if error_or_none else job.topics:
                self._soon(self.hub.notify, topic)

    def _attempt(self, connection: Connection, job: _Job) -> None:
        savepoint = connection.begin_nested()
        transaction = Transaction(connection, self._clock)
        try:
            job.value = job.work(transaction)
        except Exception as error:  # whatever it is, it belongs to who asked
            job.error = error
            savepoint.rollback()
        else:
            savepoint.commit()
            job.topics = transaction.topics

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        make_private_folder(self._path.parent)
        lock = self._path.with_name(f"{self._path.name}.lock")
        make_private_file(lock)
        with lock.open("ab") as file:
            _wait_for(file)  # the kernel lets go of it when a process dies
            yield

    def _soon(self, call: Any, *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended; nobody waits any more
            self._loop.call_soon_threadsafe(call, *args)

    def _cannot_open(self, error: Exception) -> CastmateError:
        if isinstance(error, CastmateError):
            return error
        return SettingsError(
            f"CASTMATE_DATABASE_URL: {self._path} cannot be opened as a ledger "
            f"({_reason(error)}); name a file in a folder you may write to."
        )


if sys.platform == "win32":
    import msvcrt

    def _wait_for(file: IO[bytes]) -> None:
        while True:
            with contextlib.suppress(OSError):  # after ten seconds
                return msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)

else:
    import fcntl

    _NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)

    def _wait_for(file: IO[bytes]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise SettingsError(
                f"CASTMATE_DATABASE_URL: the file system of {file.name} has no file locks "
                f"({error.strerror}), which keep processes from writing over one another. Set "
                "CASTMATE_DATA_DIR to a folder on a local disk, or use PostgreSQL."
            ) from None


def _data_version(connection: Connection) -> int:
    """Changes with every commit of another connection."""
    return int(connection.connection.execute("pragma data_version").fetchone()[0])


def _answer(answer: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if answer.done():  # cancelled meanwhile
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error)
