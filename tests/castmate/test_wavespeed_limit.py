"""No minute holds more submissions than the account's tier allows, whoever comes and goes."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castmate.clients.wavespeed.limit import MINUTE_S, RateLimit
from castmate.errors import Overloaded
from tests.doubles import FakeClock

pytestmark = pytest.mark.anyio


class Visitors:
    """Those who wait for a turn; a clock that is set by hand wakes them."""

    def __init__(self, per_minute: int) -> None:
        self.clock = FakeClock()
        self.waiting: list[tuple[float, asyncio.Event]] = []
        self.limit = RateLimit(per_minute, clock=self.clock, sleep=self.sleep)
        self.served: list[float] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self.waiting.append((self.clock.now + seconds, event))
        await event.wait()

    async def come(self, patience_s: float = 1e9) -> None:
        async def visit() -> None:
            await self.limit.turn(patience_s)
            self.served.append(self.clock.now)

        self.tasks.append(asyncio.create_task(visit()))
        await asyncio.sleep(0)

    async def leave(self, index: int) -> None:
        self.tasks[index % len(self.tasks)].cancel()
        await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        end = self.clock.now + seconds
        for at, event in sorted(self.waiting, key=lambda entry: entry[0]):
            if at <= end:
                self.clock.now = max(self.clock.now, at)
                event.set()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        self.clock.now = end

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_turns_are_given_in_the_order_of_coming_two_a_minute() -> None:
    visitors = Visitors(2)
    for _ in range(5):
        await visitors.come()
    await visitors.pass_time(300)
    assert [at - 1000 for at in visitors.served] == [0, 0, 60, 60, 120]


async def test_who_has_less_patience_than_the_wait_is_told_and_takes_no_turn() -> None:
    visitors = Visitors(1)
    await visitors.come()
    visitors.clock.now += 20
    with pytest.raises(Overloaded, match="may make 1 a minute") as caught:
        await visitors.limit.turn(39)
    assert caught.value.retry_after_s == 40
    await visitors.come()
    await visitors.pass_time(40)
    assert visitors.served[-1] - 1000 == 60


async def test_who_leaves_gives_the_turn_back() -> None:
    visitors = Visitors(1)
    await visitors.come()
    await visitors.come()
    await visitors.leave(1)
    await visitors.come()
    await visitors.pass_time(60)
    assert [at - 1000 for at in visitors.served] == [0, 60]


async def test_after_a_pause_was_asked_for_there_is_no_turn_until_its_end() -> None:
    visitors = Visitors(10)
    visitors.limit.pause(30)
    await visitors.come()
    await visitors.pass_time(30)
    assert [at - 1000 for at in visitors.served] == [30]


steps = st.lists(
    st.one_of(
        st.just(("come", 0.0)),
        st.tuples(st.just("leave"), st.integers(0, 9).map(float)),
        st.tuples(st.just("pass"), st.sampled_from([0.5, 10.0, 59.5, 60.0, 100.0])),
        st.tuples(st.just("pause"), st.sampled_from([1.0, 60.0])),
    ),
    max_size=40,
)


@given(steps, st.integers(1, 3))
def test_no_minute_holds_too_many_whoever_comes_and_goes(
    steps: list[tuple[str, float]], per_minute: int
) -> None:
    async def play() -> list[float]:
        visitors = Visitors(per_minute)
        for step, value in steps:
            if step == "come":
                await visitors.come()
            elif step == "leave" and visitors.tasks:
                await visitors.leave(int(value))
            elif step == "pass":
                await visitors.pass_time(value)
            elif step == "pause":
                visitors.limit.pause(value)
        await visitors.pass_time(10_000)
        await visitors.close()
        return sorted(visitors.served)

    served = asyncio.run(play())
    pairs = zip(served, served[per_minute:], strict=False)
    assert all(later - earlier >= MINUTE_S for earlier, later in pairs)
