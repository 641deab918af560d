"""Callers and arrivals, and what is counted."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from benchmarks.load import Memory, Tally, closed, poisson
from castmate.errors import Overloaded
from castmate.schema import GenerateRequest

pytestmark = pytest.mark.anyio
REQUESTS = [
    GenerateRequest.parse({"prompt": "a", "image": "b", "seed": seed}) for seed in range(1000)
]


class Door:
    """Draws nothing, and notes who is inside."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.inside = self.most = 0

    async def draw(self, request: GenerateRequest) -> None:
        self.seeds.append(request.seed)
        self.inside += 1
        self.most = max(self.most, self.inside)
        for _ in range(3):
            await asyncio.sleep(0)
        self.inside -= 1
        if request.seed % 5 == 0:
            raise Overloaded("full", retry_after_s=1)


async def test_a_closed_loop_keeps_as_many_callers_busy_as_it_was_told() -> None:
    door = Door()
    tally, took_s = await closed(door.draw, REQUESTS, 3, 0.05)
    assert door.most == 3
    assert tally.offered == len(door.seeds)
    assert took_s >= 0.05


async def test_refused_requests_are_counted_and_have_no_time() -> None:
    tally, _ = await closed(Door().draw, REQUESTS, 1, 0.05)
    figures = tally.figures(1.0, None)
    assert figures["refused"] == {"Overloaded": figures["offered"] - figures["done"]}
    assert figures["refused"]["Overloaded"] > 0
    assert figures["runs"] == figures["done"]


async def test_arrivals_are_the_same_every_time_and_wait_for_nobody() -> None:
    gate, begun = asyncio.Event(), []

    async def draw(request: GenerateRequest) -> None:
        begun.append(request.seed)
        await gate.wait()

    arrivals = asyncio.create_task(poisson(draw, REQUESTS, 400, 0.1))
    async with asyncio.timeout(10):
        while len(begun) < 10:
            await asyncio.sleep(0)
        gate.set()
        first, _ = await arrivals
        second, _ = await poisson(Door().draw, REQUESTS, 400, 0.1)
    assert begun == sorted(begun)
    assert first.offered == second.offered
    assert 20 < first.offered < 80


def test_goodput_counts_late_and_refused_requests_as_lost() -> None:
    tally = Tally([100.0, 200.0, 900.0], {"Overloaded": 1}, offered=4)
    assert tally.figures(2.0, 250)["goodput"] == 0.5
    assert tally.figures(2.0, 250)["pictures_per_s"] == 1.5
    assert "goodput" not in tally.figures(2.0, None)


async def test_the_time_of_a_late_request_runs_from_when_it_was_due() -> None:
    tally = Tally()
    await tally.ask(Door().draw, REQUESTS[1], time.perf_counter() - 0.5)
    assert tally.times_ms[0] > 500


def test_memory_is_that_of_the_process_and_of_its_children() -> None:
    figures = Memory(os.getpid()).figures()
    assert figures["start_mib"] > 20
    assert figures["most_mib"] == figures["last_third_mib"]
