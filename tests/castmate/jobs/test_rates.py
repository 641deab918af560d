"""A key's requests a minute, over all servers that share a ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pytest

from castmate.errors import Overloaded, Unavailable
from castmate.jobs.database import Database
from castmate.jobs.keys import KeyRing
from castmate_mcp.http.limits import BURST_S, RateLimiter
from tests.castmate.jobs.conftest import Clock

pytestmark = pytest.mark.anyio


@pytest.fixture
def keys(database: Database) -> KeyRing:
    return KeyRing(database)


async def test_a_key_asks_as_its_rate_says_and_at_most_a_burst_more_at_each_server(
    keys: KeyRing, clock: Clock
) -> None:
    key, _ = await keys.create("ann", per_minute=60)
    servers, asked, seconds = [RateLimiter(clock) for _ in range(3)], 0, 60
    for _ in range(seconds):
        for server in servers:
            with contextlib.suppress(Overloaded):
                while True:
                    server.take(key)
                    asked += 1
        for server in servers:
            await server.share(keys.count)
        clock.now += 1
    assert seconds <= asked <= seconds + len(servers) * BURST_S


async def test_what_could_not_be_told_is_told_later(keys: KeyRing, clock: Clock) -> None:
    async def away(used: Mapping[str, float]) -> Mapping[str, float]:
        raise Unavailable("The database restarts.")

    key, _ = await keys.create("ann", per_minute=60)
    one, other = RateLimiter(clock), RateLimiter(clock)
    for _ in range(10):
        one.take(key)
    with pytest.raises(Unavailable):
        await one.share(away)
    await one.share(keys.count)
    other.take(key)
    await other.share(keys.count)
    with pytest.raises(Overloaded):
        other.take(key)


async def test_a_clock_that_was_set_back_keeps_nobody_out(keys: KeyRing, clock: Clock) -> None:
    key, _ = await keys.create("ann", per_minute=60)
    one = RateLimiter(clock)
    one.take(key)
    await one.share(keys.count)
    clock.now -= 2 * 3600
    later = RateLimiter(clock)
    later.take(key)
    await later.share(keys.count)
    later.take(key)


async def test_where_nobody_asks_nothing_is_told(keys: KeyRing, clock: Clock) -> None:
    async def never(used: Mapping[str, float]) -> Mapping[str, float]:
        raise AssertionError("it was told of nothing")

    await RateLimiter(clock).share(never)
