"""A client that keeps failing is left alone for a while, and then one caller tries it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from castmate.breaker import BreakerState
from castmate.errors import InvalidRequest, Overloaded, Problem
from castmate.router import Router
from castmate.schema import GenerateResult
from tests.castmate.routes import CAPPED, DOWN, draw, failure, named, route
from tests.doubles import FakeClock, FlatClient

pytestmark = pytest.mark.anyio


async def test_what_keeps_failing_is_left_alone_and_asked_again_after_a_while() -> None:
    clock = FakeClock()
    failing, second = named("local", error=DOWN), named("triton")
    router = route(failing, second, clock=clock, cooldown_s=10)
    for _ in range(5):
        await draw(router)
    result = await draw(router)
    assert len(failing.requests) == 5
    assert "left alone for another 10 s. Last: Down." in result.warnings[0]
    assert router.status()[0].breaker is BreakerState.OPEN
    clock.now += 10
    failing._error = None
    assert (await draw(router)).client == "local"
    assert router.status()[0].breaker is BreakerState.CLOSED


class Gate(FlatClient):
    """A client whose calls wait until they are let through."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(error)
        self.opened = asyncio.Event()
        self.entered = asyncio.Event()
        self.calls = 0

    async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
        self.calls += 1
        self.entered.set()
        await self.opened.wait()
        return await super().generate(*args, **kwargs)


async def half_open(gate: Gate) -> tuple[Router, FlatClient, FakeClock]:
    """A router whose first client has failed often, and may be tried again."""
    clock, second = FakeClock(), named("triton")
    gate.opened.set()
    gate._error = DOWN
    router = route(named("local", gate), second, clock=clock, cooldown_s=10)
    for _ in range(5):
        await draw(router)
    gate.opened.clear()
    gate.entered.clear()
    gate._error, gate.calls = None, 0
    clock.now += 10
    return router, second, clock


async def test_of_fifty_callers_one_tries_the_client_that_failed_and_all_get_their_picture() -> (
    None
):
    gate = Gate()
    router, _, _ = await half_open(gate)
    tasks = [asyncio.create_task(draw(router)) for _ in range(50)]
    others, _ = await asyncio.wait(tasks, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    while len(others) < 49:
        await asyncio.sleep(0)
        others = {task for task in tasks if task.done()}
    assert gate.calls == 1
    gate.opened.set()
    results = await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert sorted(result.client for result in results) == ["local", *["triton"] * 49]


async def test_a_cancelled_probe_lets_the_next_caller_try() -> None:
    gate = Gate()
    router, _, _ = await half_open(gate)
    probe = asyncio.create_task(draw(router))
    await asyncio.wait_for(gate.entered.wait(), 5)
    probe.cancel()
    await asyncio.wait([probe], timeout=5)
    gate.opened.set()
    assert (await draw(router)).client == "local"
    assert gate.calls == 2


async def test_a_bad_request_or_a_full_queue_does_not_make_a_client_look_broken() -> None:
    bad = InvalidRequest([Problem("size", "too odd")])
    for error in (bad, Overloaded("Full.", retry_after_s=1), CAPPED):
        router = route(named("local", error=error), named("triton", error=error))
        for _ in range(8):
            await failure(router)
        assert router.status()[0].breaker is BreakerState.CLOSED


async def test_slow_counts_as_failure_only_where_there_is_another_client() -> None:
    clock = FakeClock()

    class Slow(FlatClient):
        async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
            clock.now += 3
            return await super().generate(*args, **kwargs)

    for others, clients in (((named("triton"),), ["triton"]), ((), ["local"])):
        router = route(named("local", Slow()), *others, clock=clock, slow_s=2)
        made = [(await draw(router)).client for _ in range(6)]
        assert made == ["local"] * 5 + clients
