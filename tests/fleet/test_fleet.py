"""The whole fleet through its faults: nothing that was acknowledged fails, is lost or drawn twice.

`make chaos` does it for longer: `FLEET_PREDICTIONS=2000`; shorter with 40 and `FLEET_AWAY_S=4`.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from sqlalchemy import text

from castmate.clients.triton.client import TritonClient
from castmate.jobs.keys import KeyRing
from castmate.jobs.opening import open_database
from castmate.triton.server import TritonServer
from tests.doubles import picture
from tests.fleet.callers import Caller, Seen
from tests.fleet.relay import Relay
from tests.fleet.services import ACCESS, BUCKET, Gateway, object_storage, postgres

pytestmark = [pytest.mark.anyio, pytest.mark.fleet]

PREDICTIONS = int(os.environ.get("FLEET_PREDICTIONS", "200"))
AWAY_S = float(os.environ.get("FLEET_AWAY_S", "10"))
EVENT_TIMEOUT_S = 2.0
LEASE_S = 5
# A server ends with the thread that started it, and the relays' thread must not wait for it.
STARTER = ThreadPoolExecutor(1)


@dataclass
class Fleet:
    """Everything that can fail."""

    tritons: list[TritonServer]
    joining: TritonServer
    gateways: list[Gateway]
    database: Relay
    storage: Relay
    url: str
    database_url: str
    spans: list[tuple[str, float, float]] = field(default_factory=list)

    async def suffer(self) -> None:
        """Each fault in turn, some seconds apart."""
        faults: dict[str, Callable[[], Awaitable[None]]] = {
            "a third tritonserver joins": self._join,
            "a tritonserver is killed": self._kill_triton,
            f"a tritonserver freezes for {AWAY_S:g} s": self._freeze_triton,
            "a gateway is killed": self._kill_gateway,
            "a gateway is restarted by SIGTERM": self._restart_gateway,
            f"the database is away for {AWAY_S:g} s": functools.partial(self.database.away, AWAY_S),
            f"the storage is away for {AWAY_S:g} s": functools.partial(self.storage.away, AWAY_S),
        }
        for name, fault in faults.items():
            begin = time.monotonic()
            await fault()
            await asyncio.sleep(2)
            self.spans.append((name, begin, time.monotonic()))

    async def _join(self) -> None:
        await _start(self.joining)

    async def _kill_triton(self) -> None:
        server = self.tritons[0]
        os.kill(server.pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
        server.kill()  # what is left of its group
        await _start(server)

    async def _freeze_triton(self) -> None:
        os.kill(self.tritons[1].pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(AWAY_S)
        finally:
            os.kill(self.tritons[1].pid, signal.SIGCONT)

    async def _kill_gateway(self) -> None:
        self.gateways[0].kill()
        await asyncio.sleep(2)
        await asyncio.to_thread(self.gateways[0].start)

    async def _restart_gateway(self) -> None:
        assert await asyncio.to_thread(self.gateways[1].terminate) == 0
        await asyncio.to_thread(self.gateways[1].start)


@pytest.fixture
async def fleet(own_folder: Path, start_server: Callable[[], TritonServer]) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as ends:
        socket = ends.enter_context(postgres())
        bucket = ends.enter_context(object_storage(own_folder / "s3"))
        database = Relay([functools.partial(asyncio.open_unix_connection, socket)])
        storage = Relay([functools.partial(asyncio.open_connection, "127.0.0.1", bucket)])
        for relay in (database, storage):
            await relay.start()
            ends.push_async_callback(relay.stop)
        tritons = [start_server(), start_server(), start_server()]
        tritons[2].stop()  # its address is known before it is there
        settings = {
            "CASTMATE_CLIENTS": "triton",
            "CASTMATE_TRITON_URLS": ",".join(server.url for server in tritons),
            "CASTMATE_TRITON_EVENT_TIMEOUT_S": str(EVENT_TIMEOUT_S),
            "CASTMATE_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{database.port}/postgres",
            "CASTMATE_STORAGE_URL": f"s3://{BUCKET}/pictures",
            "CASTMATE_FILES_SECRET": "0123456789abcdef" * 2,
            "CASTMATE_WORKER_SLOTS": "2",
            "CASTMATE_LEASE_S": str(LEASE_S),
            "CASTMATE_QUEUE_LIMIT": "1000",
            "CASTMATE_COOLDOWN_S": "1",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": f"http://127.0.0.1:{storage.port}",
            "AWS_ALLOW_HTTP": "true",
            **ACCESS,
        }
        gateways = [Gateway(own_folder / f"gateway-{number}", **settings) for number in (1, 2)]
        door = Relay(
            [functools.partial(asyncio.open_connection, "127.0.0.1", one.port) for one in gateways]
        )
        await door.start()
        ends.push_async_callback(door.stop)
        url = f"http://127.0.0.1:{door.port}"
        for one in gateways:
            one.settings["CASTMATE_PUBLIC_URL"] = url
        await asyncio.gather(*(asyncio.to_thread(one.start) for one in gateways))
        for one in gateways:
            ends.callback(one.kill)
        database_url = settings["CASTMATE_DATABASE_URL"]
        yield Fleet(tritons, tritons[2], gateways, database, storage, url, database_url)


@pytest.fixture
async def ends() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def connections(**options: Any) -> httpx2.AsyncClient:
    """A connection of its own for every request, so any gateway may answer it."""
    limits = httpx2.Limits(max_keepalive_connections=0)
    return httpx2.AsyncClient(
        trust_env=False, timeout=30, limits=limits, follow_redirects=True, **options
    )


@pytest.mark.timeout(600 + PREDICTIONS)
async def test_nothing_that_was_acknowledged_fails_is_lost_or_drawn_twice(
    fleet: Fleet, ends: AsyncExitStack
) -> None:
    database = await open_database(fleet.database_url)
    secrets = [(await KeyRing(database).create(name))[1] for name in ("ann", "bob")]
    await database.aclose()
    seen = Seen()
    http = await ends.enter_async_context(connections())
    callers = [Caller(http, fleet.url, secret, seen) for secret in secrets]
    files = {"file": ("fox.png", picture((64, 64)), "image/png")}
    images = [
        (await caller.ask("POST", "/api/v3/media/upload/binary", files=files))["download_url"]
        for caller in callers
    ]
    for era in ("2026-07-28", "legacy"):
        await drawn_by_an_agent(fleet.url, secrets[0], era)
    suffering = asyncio.create_task(fleet.suffer())
    begin = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            if number >= PREDICTIONS and suffering.done():
                break
            caller, image = callers[number % 2], images[number % 2]
            group.create_task(caller.draw(image, number))
            # Spread over the faults, which last a minute and more: each meets some.
            await asyncio.sleep(0.0 if suffering.done() else 60 / PREDICTIONS)
    await suffering
    print(f"\n{number} predictions in {time.monotonic() - begin:.0f} s, {seen.statuses}")
    for name, first, last in fleet.spans:
        print(f"{name:<36} slowest picture after {seen.slowest_s(first, last):5.1f} s")
    assert seen.ended == {"completed": number}
    assert len(seen.acknowledged) == number
    assert seen.unlike == []
    assert await drawn_twice(fleet) == []
    assert await drawn_by(fleet.joining) > 0, "the server that joined has drawn"


async def drawn_by_an_agent(url: str, secret: str, era: str) -> None:
    """A whole generation over MCP, its upload included, each request on its own connection."""
    headers = {"Authorization": f"Bearer {secret}"}
    async with (
        connections(headers=headers) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=era) as client,
    ):
        link = (await client.call_tool("create_upload_link", {})).structured_content
        assert link is not None
        async with connections() as stranger:
            sent = await stranger.put(link["upload_url"], content=picture((64, 64)))
            assert sent.status_code == 200
            scene = {"prompt": "waving", "image": link["image"], "size": "512*512"}
            scene |= {"num_inference_steps": 4}
            result = await client.call_tool("generate_character_image", scene)
            out = result.structured_content
            assert out is not None, result.content
            assert out["status"] == "completed"
            address = out["images"][0]["download_url"]
            got = await stranger.get(address)
            assert got.content.startswith(b"\x89PNG")


async def drawn_by(server: TritonServer) -> int:
    """How many requests a server has finished since its start."""
    client = TritonClient((server.url,))
    try:
        return int((await client.probe(server.url))["done"])
    finally:
        await client.aclose()


async def _start(server: TritonServer) -> None:
    await asyncio.get_running_loop().run_in_executor(STARTER, server.start)


async def drawn_twice(fleet: Fleet) -> list[str]:
    """Predictions with more than one finished attempt."""
    query = text(
        "select prediction_id from attempts where outcome = 'completed' "
        "group by prediction_id having count(*) > 1"
    )
    database = await open_database(fleet.database_url)
    try:
        return await database.run(lambda tx: [row[0] for row in tx.connection.execute(query)])
    finally:
        await database.aclose()
