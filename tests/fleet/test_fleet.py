"""The whole fleet through its faults: nothing that was acknowledged fails, is lost or drawn twice.

`make test` takes it through a few; `make chaos` through all of them, and prints how long callers
waited meanwhile. `make chaos FLEET_PREDICTIONS=2000` does it for longer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from castmate.jobs.keys import KeyRing
from castmate.jobs.opening import open_database
from castmate.triton.server import TritonServer
from tests.doubles import picture
from tests.fleet.callers import Caller, Seen
from tests.fleet.fleet import (
    Fleet,
    Plan,
    database_is_away,
    gateway_dies,
    gateway_restarts,
    gateway_starts,
    running,
    storage_is_away,
    triton_dies,
    triton_freezes,
    triton_starts,
)

pytestmark = pytest.mark.anyio

PREDICTIONS = int(os.environ.get("FLEET_PREDICTIONS", "200"))
FEW = Plan(
    events=(
        ("a tritonserver is killed", triton_dies(0)),
        ("a gateway is killed", gateway_dies(0)),
        ("the storage is away for 3 s", storage_is_away(3)),
    ),
    predictions=12,
    pace_s=0.5,
    settle_s=1.0,
    num_tritons=2,
    lease_s=5,  # other tests take the processors meanwhile: nobody may seem dead for that
    event_timeout_s=10.0,
)
ALL = Plan(
    events=(
        ("a third tritonserver joins", triton_starts(2)),
        ("a tritonserver is killed", triton_dies(0)),
        ("it is back", triton_starts(0)),
        ("a tritonserver freezes for 10 s", triton_freezes(1, 10)),
        ("a gateway is killed", gateway_dies(0)),
        ("it is back", gateway_starts(0)),
        ("a gateway is restarted by SIGTERM", gateway_restarts(1)),
        ("the database is away for 10 s", database_is_away(10)),
        ("the storage is away for 10 s", storage_is_away(10)),
    ),
    predictions=PREDICTIONS,
    pace_s=60 / PREDICTIONS,  # spread over the faults, which last a minute and more
    settle_s=2.0,
    num_tritons=3,
    num_joining=1,
)
PLANS = (
    pytest.param(FEW, id="few", marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    pytest.param(ALL, id="all", marks=[pytest.mark.fleet, pytest.mark.timeout(600 + PREDICTIONS)]),
)


@pytest.fixture
async def fleet(
    plan: Plan, own_folder: Path, start_server: Callable[[], TritonServer]
) -> AsyncIterator[Fleet]:
    async with running(plan, own_folder, start_server) as found:
        yield found


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


@pytest.mark.parametrize("plan", PLANS)
async def test_nothing_that_was_acknowledged_fails_is_lost_or_drawn_twice(
    plan: Plan, fleet: Fleet, ends: AsyncExitStack
) -> None:
    database = await open_database(fleet.database_url)
    secrets = [(await KeyRing(database).create(name))[1] for name in ("ann", "bob")]
    await database.aclose()
    seen = Seen()
    http = await ends.enter_async_context(connections())
    callers = [Caller(http, fleet.url, secret, seen) for secret in secrets]
    files = {"file": ("fox.png", picture((64, 64)), "image/png")}
    images = []
    for caller in callers:
        fleet.hooks.secrets.append((await caller.ask("GET", "/api/v3/webhook/secret"))["secret"])
        taken = await caller.ask("POST", "/api/v3/media/upload/binary", files=files)
        images.append(taken["download_url"])
    for era in ("2026-07-28", "legacy"):
        await drawn_by_an_agent(fleet.url, secrets[0], era)
    suffering = asyncio.create_task(fleet.suffer(plan))
    begin = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            if number >= plan.predictions and suffering.done():
                break
            caller, image = callers[number % 2], images[number % 2]
            group.create_task(caller.draw(image, number))
            await asyncio.sleep(0.0 if suffering.done() else plan.pace_s)
    await suffering
    async with asyncio.timeout(90):  # a gateway may have died in the midst of a delivery
        await asyncio.gather(*(fleet.hooks.received_of(name) for name in seen.acknowledged))
    print_what_was_seen(fleet, seen, time.monotonic() - begin)
    assert seen.ended == {"completed": number}
    assert len(seen.acknowledged) == number
    assert seen.unlike == []
    assert await fleet.drawn_twice() == []
    assert fleet.hooks.received.keys() == seen.acknowledged.keys()
    assert fleet.hooks.forged == []
    for joined in range(plan.num_tritons - plan.num_joining, plan.num_tritons):
        drawn = await fleet.metric(joined, "castmate_requests_total")
        assert drawn > 0, "a server that joined has drawn"


def print_what_was_seen(fleet: Fleet, seen: Seen, seconds: float) -> None:
    """A table of what callers waited for, as docs/scale.md has it."""
    print(f"\n{seen.ended.total()} predictions in {seconds:.0f} s, {dict(seen.statuses)} by status")
    again = sum(times > 1 for times in fleet.hooks.received.values())
    print(f"{len(fleet.hooks.received)} webhooks, {again} of them called more than once")
    print("| | acknowledged after | drawn after |\n|---|---|---|")
    for name, first, last in fleet.spans:
        taken_s, drawn_s = seen.slowest_s(first, last)
        print(f"| {name} | {taken_s:.1f} s | {drawn_s:.1f} s |")
    for number, gateway in enumerate(fleet.gateways, 1):
        took = ", ".join(f"{took_s:.2f} s" for took_s in gateway.starts_s)
        ended = ", ".join(f"{took_s:.2f} s" for took_s in gateway.ends_s)
        print(f"gateway {number}: ready after {took}; ended by SIGTERM in {ended or 'no case'}")


async def drawn_by_an_agent(url: str, secret: str, era: Literal["2026-07-28", "legacy"]) -> None:
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
