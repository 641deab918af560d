"""TritonClient and several servers: which draws, and what happens when one cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from castmate.clients.triton.client import TritonClient
from castmate.clients.triton.discovery import REFRESH_S, Discovery
from castmate.errors import (
    InvalidRequest,
    Overloaded,
    Problem,
    Unavailable,
)
from castmate.triton import wire
from tests.fakes.triton import (
    DONE,
    FACTS,
    PICTURE,
    Connect,
    Draw,
    Fail,
    ScriptedServer,
    connect,
    draw,
    gone,
    server,
    servers,
)

# Fixtures are found by their names in the module.
__all__ = ["connect", "draw", "server", "servers"]

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]


async def test_another_server_takes_a_request_that_the_first_refused_before_it_began(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    broken, whole, _ = servers
    client = connect(broken, whole)
    broken.script, whole.load = [gone()], 1
    assert (await draw(client)).images
    assert (len(broken.requests), len(whole.requests)) == (1, 1)
    assert (await draw(client)).images
    assert (len(broken.requests), len(whole.requests)) == (1, 2)  # the broken one rests


async def test_when_a_server_dies_in_the_midst_another_one_draws_the_same_picture(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    broken, whole, _ = servers
    broken.script, whole.load = [wire.ahead(0), gone()], 1
    assert (await draw(connect(broken, whole))).images
    assert len(whole.requests) == 1
    assert whole.requests[0].inputs == broken.requests[0].inputs


async def test_a_request_that_kills_whatever_draws_it_does_not_meet_every_server(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    client = connect(*servers)
    for one in servers:
        one.script = [wire.ahead(0), gone()]
    with pytest.raises(Unavailable, match="Socket closed") as caught:
        await draw(client)
    assert caught.value.died
    assert sorted(len(server.requests) for server in servers) == [0, 1, 1]


async def test_requests_that_others_have_sent_to_a_server_count_too(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    client = connect(*servers)
    for one, load in zip(servers, (3, 0, 2), strict=True):
        one.load = load
    assert (await draw(client)).images
    assert [len(server.requests) for server in servers] == [0, 1, 0]


async def test_a_full_server_passes_the_request_on_and_when_all_are_full_the_shortest_wait_is_told(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    first, second, _ = servers
    client = connect(first, second)
    for one, wait_s in ((first, 9.0), (second, 4.0)):
        text = wire.encode_error(Overloaded("full", retry_after_s=wait_s))
        one.script = [Fail(text)]
    with pytest.raises(Overloaded) as caught:
        await draw(client)
    assert caught.value.retry_after_s == 4.0
    second.script = DONE
    assert (await draw(client)).images


async def test_a_server_that_leaves_its_name_finishes_what_it_draws(
    servers: list[ScriptedServer], draw: Draw
) -> None:
    first, second, _ = servers
    port = first.url.rpartition(":")[2]
    other = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(second, other)
    other.add_insecure_port(f"127.0.0.2:{port}")
    await other.start()
    addresses, now = ["127.0.0.1"], [0.0]

    async def lookup(host: str, port: int) -> Sequence[str]:
        return list(addresses)

    name = (f"dns:///gpus:{port}",)
    discovery = Discovery(name, lookup=lookup, clock=lambda: now[0])
    client = TritonClient(name, discovery=discovery)
    held, going_on = asyncio.Event(), asyncio.Event()
    first.script = [wire.ahead(0), (held, going_on), PICTURE, wire.report(FACTS)]
    async with asyncio.timeout(20):
        drawing = asyncio.ensure_future(draw(client))
        await held.wait()
        addresses[:], now[:] = ["127.0.0.2"], [REFRESH_S]
        while not second.requests:
            await draw(client)
        going_on.set()
        assert (await drawing).images
        await client.aclose()
        await other.stop(None)


async def test_a_bad_request_is_not_tried_elsewhere(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    text = wire.encode_error(InvalidRequest([Problem("size", "no")]))
    for one in servers:
        one.script = [Fail(text)]
    with pytest.raises(InvalidRequest):
        await draw(connect(*servers))
    assert sum(len(server.requests) for server in servers) == 1


async def test_concurrent_requests_are_spread_over_the_servers(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    client = connect(*servers)
    await asyncio.gather(*(draw(client) for _ in range(6)))
    assert [len(server.requests) for server in servers] == [2, 2, 2]


async def test_a_failed_server_is_asked_before_it_gets_another_request(
    server: ScriptedServer, connect: Connect, draw: Draw
) -> None:
    client = connect(server)
    server.script, server.dead = [Fail("oh")], True
    for _ in range(2):
        with pytest.raises(Unavailable):
            await draw(client)
    assert len(server.requests) == 1
    server.script, server.dead = DONE, False
    assert (await draw(client)).images


async def test_when_no_server_works_the_error_tells_of_each(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    for one in servers:
        one.script = [gone()]
    with pytest.raises(Unavailable) as caught:
        await draw(connect(*servers))
    assert all(server.url in str(caught.value) for server in servers)
