"""What breaks ends in a named error, in bounded time, and the next request works."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from castmate.clients.triton.client import TritonClient
from castmate.errors import Overloaded, Unavailable
from castmate.images import Reference
from castmate.schema import GenerateRequest
from castmate.triton.server import TritonServer

MakeRequest = Callable[..., GenerateRequest]
Character = Callable[[str], Reference]
StartServer = Callable[..., TritonServer]
Draw = Callable[..., Any]

EVENT_TIMEOUT_S = 3.0

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.usefixtures("one_loop")]


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> TritonServer:
    return start_server(max_waiting="1")


@pytest.fixture
async def client(server: TritonServer) -> AsyncIterator[TritonClient]:
    client = TritonClient((server.url,), event_timeout_s=EVENT_TIMEOUT_S)
    yield client
    await client.aclose()


@pytest.fixture
def draw(client: TritonClient, make_request: MakeRequest, character: Character) -> Draw:
    """Starts a request and calls back after its first step; it would take seconds."""

    async def start(strike: Callable[[], object] | None = None) -> Any:
        def after_the_first_step(progress: Any) -> None:
            if progress.step == 1 and strike:
                strike()

        long = {"num_images": 4, "num_inference_steps": 50} if strike else {"num_images": 1}
        return await client.generate(make_request(**long), character("mira"), after_the_first_step)

    return start


class Clock:
    def __init__(self) -> None:
        self._start = 0.0

    def start(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start


def stub_of(server: TritonServer) -> int:
    """The model's process."""
    (stub,) = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/stat")
        if f" {server.pid} " in path.read_text().rpartition(")")[2]
        and "triton_python_backend_stub" in path.with_name("cmdline").read_text()
    ]
    return stub


async def test_a_killed_server_is_an_error_at_once_and_a_new_one_is_found(
    draw: Draw, server: TritonServer
) -> None:
    clock = Clock()

    def kill() -> None:
        clock.start()
        os.kill(server.pid, signal.SIGKILL)

    with pytest.raises(Unavailable, match="cannot be reached"):
        await draw(kill)
    assert clock.seconds < 1
    with pytest.raises(Unavailable, match="cannot be reached"):
        await draw()
    server.kill()
    server.start()
    await asyncio.wait_for(draw(), 30)


async def test_a_frozen_server_is_given_up_and_used_again_when_it_goes_on(
    draw: Draw, server: TritonServer
) -> None:
    clock = Clock()

    def freeze() -> None:
        clock.start()
        os.kill(server.pid, signal.SIGSTOP)

    try:
        with pytest.raises(Unavailable, match="Triton at"):
            await draw(freeze)
        assert clock.seconds < EVENT_TIMEOUT_S + 1
        clock.start()
        with pytest.raises(Unavailable, match="Triton at"):
            await draw()
        assert clock.seconds < EVENT_TIMEOUT_S + 1
    finally:
        os.kill(server.pid, signal.SIGCONT)
    async with asyncio.timeout(30):
        while True:
            try:
                await draw()
            except Overloaded:  # what was frozen is still being made; its end is near
                continue
            break


async def test_a_killed_model_process_is_an_error_although_the_server_says_ready(
    draw: Draw, server: TritonServer, client: TritonClient
) -> None:
    clock = Clock()

    def kill() -> None:
        clock.start()
        os.kill(stub_of(server), signal.SIGKILL)

    with pytest.raises(Unavailable, match="sent nothing for 3 s"):
        await draw(kill)
    assert clock.seconds < EVENT_TIMEOUT_S + 1
    with pytest.raises(Unavailable, match="lost its model's process; restart it"):
        await client.probe(server.url)
    server.kill()
    server.start()
    await asyncio.wait_for(draw(), 30)


async def test_a_full_queue_refuses_the_next_request_and_takes_one_again_later(
    client: TritonClient, make_request: MakeRequest, character: Character
) -> None:
    outcomes = await asyncio.gather(
        *(client.generate(make_request(seed=seed), character("mira")) for seed in range(5)),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(refused) == 3
    for error in refused:
        assert isinstance(error, Overloaded)
        assert error.retry_after_s > 0
    await client.generate(make_request(), character("mira"))


async def test_a_model_that_cannot_load_says_why_the_server_does_not_start(
    start_server: StartServer,
) -> None:
    with pytest.raises(Unavailable, match=r"did not start\. settings_error: .*`pulse_s`"):
        start_server(pulse_s="soon")
