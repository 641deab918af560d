"""Following a prediction: every look and every step in order, the latest alone for who is slow."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from castmate.clients.base import Progress
from castmate.errors import CastmateError, PredictionNotFound
from castmate.jobs.claims import Claims
from castmate.jobs.following import follow
from castmate.jobs.ledger import Ledger
from castmate.jobs.predictions import Prediction, State
from tests.castmate.jobs.conftest import Submit

pytestmark = pytest.mark.anyio


async def test_looks_and_steps_come_in_order_until_the_end(
    ledger: Ledger, claims: Claims, submit: Submit
) -> None:
    hub, name = ledger.database.hub, (await submit()).id
    async with asyncio.timeout(10), aclosing(follow(ledger, name, until=asyncio.Event())) as seen:
        first = await anext(seen)
        assert isinstance(first, Prediction)
        assert first.state is State.CREATED
        (claim,) = await claims.claim("me", 1)
        with hub.making(name):
            for step in range(3):
                hub.progress(name, Progress(step, 3))
            assert await anext(seen) == Progress(2, 3), "who is slow gets the latest"
            hub.progress(name, Progress(3, 3))
            assert await anext(seen) == Progress(3, 3)
        await claims.fail(claim, CastmateError("Broken."))
        last = [one async for one in seen][-1]
        assert isinstance(last, Prediction)
        assert last.state is State.FAILED
    assert not hub._watchers
    assert not hub._signals
    hub.progress(name, Progress(3, 3))
    assert not hub._latest, "what is over leaves nothing behind"


async def test_who_comes_late_begins_with_how_far_it_is(ledger: Ledger, submit: Submit) -> None:
    hub, name = ledger.database.hub, (await submit()).id
    with hub.making(name):
        hub.progress(name, Progress(2, 3))
        following = follow(ledger, name, until=asyncio.Event())
        async with asyncio.timeout(10), aclosing(following) as seen:
            assert isinstance(await anext(seen), Prediction)
            assert await anext(seen) == Progress(2, 3)


async def test_it_ends_when_nobody_may_wait_any_more(ledger: Ledger, submit: Submit) -> None:
    ending, name = asyncio.Event(), (await submit()).id
    async with asyncio.timeout(10), aclosing(follow(ledger, name, until=ending)) as seen:
        await anext(seen)
        asyncio.get_running_loop().call_later(0.01, ending.set)
        assert [one async for one in seen] == []


async def test_another_keys_prediction_is_not_followed(ledger: Ledger, submit: Submit) -> None:
    name = (await submit(key_name="ann")).id
    async with aclosing(follow(ledger, name, "bob", until=asyncio.Event())) as seen:
        with pytest.raises(PredictionNotFound):
            await anext(seen)
