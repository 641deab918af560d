"""A ledger behind PgBouncer in transaction mode: another session for every transaction.

`pgbouncer` is a package of Debian (`apt-get install pgbouncer`); CASTMATE_PGBOUNCER names another
place of the program.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from castmate.errors import Unavailable
from castmate.images import Reference
from castmate.jobs.claims import Claims
from castmate.jobs.following import follow
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from castmate.jobs.storage import memory_storage
from tests.castmate.jobs.claiming import RESULT
from tests.castmate.jobs.conftest import submitter
from tests.doubles import picture
from tests.fleet.relay import Relay
from tests.fleet.services import free_port, postgres

pytestmark = [pytest.mark.anyio, pytest.mark.fleet]

PGBOUNCER = os.environ.get("CASTMATE_PGBOUNCER") or shutil.which("pgbouncer", path="/usr/sbin:/bin")


@pytest.fixture
async def pooler(tmp_path: Path) -> AsyncIterator[str]:
    """PgBouncer before a PostgreSQL, with two server connections; gives the URL through it."""
    if PGBOUNCER is None:
        pytest.fail("there is no pgbouncer: `apt-get install pgbouncer`, or CASTMATE_PGBOUNCER")
    with postgres() as socket:
        # PgBouncer does not run as root, and the socket's folder is closed to others.
        door = Relay([functools.partial(asyncio.open_unix_connection, socket)])
        await door.start()
        port = free_port()
        (tmp_path / "pgbouncer.ini").write_text(
            f"""[databases]
postgres = host=127.0.0.1 port={door.port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
"""
        )
        command = [PGBOUNCER, str(tmp_path / "pgbouncer.ini")]
        command[1:1] = ["-u", "nobody"] if os.getuid() == 0 else []
        tmp_path.chmod(0o755)
        log = (tmp_path / "log").open("wb")
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            process.kill()
            process.wait(10)
            log.close()
            await door.stop()


async def opened(url: str, *, pooled: bool) -> Ledger:
    ends = time.monotonic() + 20
    while True:
        try:
            return Ledger(await open_database(url, pooled=pooled), memory_storage())
        except Unavailable:
            if time.monotonic() > ends:
                raise
            await asyncio.sleep(0.1)


async def test_predictions_go_through_and_their_ends_are_noticed(pooler: str) -> None:
    one, other = [await opened(pooler, pooled=True) for _ in range(2)]
    submit = submitter(one, Reference.from_bytes(picture(), "red.png"))
    claims = Claims(other.database)
    try:
        taken = await asyncio.gather(*(submit() for _ in range(40)))
        assert len({prediction.id for prediction in taken}) == 40
        watched = taken[0].id
        async with (
            asyncio.timeout(30),
            aclosing(follow(one, watched, until=asyncio.Event())) as looks,
        ):
            await anext(looks)
            while held := await claims.claim("worker", 8):
                await asyncio.gather(*(claims.complete(claim, RESULT) for claim in held))
            assert [look async for look in looks][-1].state.final  # type: ignore[union-attr]
        backlog = await one.backlog()
        assert (backlog.waiting, backlog.running) == (0, 0)
    finally:
        await one.database.aclose()
        await other.database.aclose()


async def test_without_the_setting_the_server_says_that_it_is_missing(pooler: str) -> None:
    await (await opened(pooler, pooled=True)).database.aclose()
    with pytest.raises(Unavailable, match="CASTMATE_DATABASE_POOLER"):
        await open_database(pooler)
