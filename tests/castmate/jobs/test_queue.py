"""Whose turn it is: shares of keys, priorities that age, a queue that is full; on both engines."""

from __future__ import annotations

import asyncio

import pytest

from castmate.errors import Overloaded
from castmate.images import Reference
from castmate.jobs.claims import Claims
from castmate.jobs.database import Database
from castmate.jobs.ledger import Ledger
from castmate.jobs.predictions import State
from castmate.jobs.queue import Limits
from castmate.jobs.storage import Storage
from tests.castmate.jobs.claiming import RESULT, claim_one, order
from tests.castmate.jobs.conftest import Clock, Submit, ids, submitter

pytestmark = pytest.mark.anyio


async def test_the_same_idempotency_key_still_answers_when_the_queue_is_full(
    database: Database, storage: Storage, reference: Reference
) -> None:
    submit = submitter(Ledger(database, storage, Limits(queue_limit=1)), reference)
    first = await submit(seed=7, idempotency_key="again")
    assert (await submit(seed=7, idempotency_key="again")).id == first.id


async def test_a_flood_by_one_key_does_not_keep_another_waiting(
    claims: Claims, submit: Submit
) -> None:
    flood = [await submit(key_name="flood") for _ in range(100)]
    await claims.claim("me", 10)
    late = [await submit(key_name="late") for _ in range(3)]
    turns = await order(claims)
    assert [turns.index(id) for id in ids(late)] <= [1, 3, 5]
    assert len(turns) == 93
    assert flood[10].id in turns[:2]


async def test_a_key_of_four_times_the_weight_gets_four_times_the_share(
    claims: Claims, submit: Submit
) -> None:
    heavy = [await submit(key_name="heavy", weight=4) for _ in range(40)]
    light = [await submit(key_name="light") for _ in range(40)]
    first = (await order(claims))[:25]
    assert len(set(first) & set(ids(heavy))) == 20
    assert len(set(first) & set(ids(light))) == 5


async def test_a_request_for_four_pictures_takes_four_turns(claims: Claims, submit: Submit) -> None:
    big = [await submit(key_name="big", num_images=4) for _ in range(4)]
    await asyncio.gather(*(submit(key_name="small") for _ in range(16)))
    first = (await order(claims))[:10]
    assert len(set(first) & set(ids(big))) == 2


async def test_a_full_queue_says_when_to_try_again(
    database: Database, storage: Storage, reference: Reference, claims: Claims, clock: Clock
) -> None:
    submit = submitter(Ledger(database, storage, Limits(queue_limit=8)), reference)
    await submit()
    claim = await claim_one(claims)
    clock.now += 6
    await claims.complete(claim, RESULT)
    await asyncio.gather(*(submit() for _ in range(8)))
    with pytest.raises(Overloaded, match="8 predictions are waiting") as caught:
        await submit()
    assert caught.value.retry_after_s == pytest.approx(12)  # a quarter of eight, 6 s each
    await claim_one(claims)
    await submit()


async def test_a_racing_crowd_does_not_overfill_the_queue(
    database: Database, storage: Storage, reference: Reference, ledger: Ledger
) -> None:
    submit = submitter(Ledger(database, storage, Limits(queue_limit=8)), reference)
    answers = await asyncio.gather(*(submit() for _ in range(30)), return_exceptions=True)
    assert sum(isinstance(answer, Overloaded) for answer in answers) == 22
    assert len(await ledger.list(state=State.CREATED)) == 8
