"""One worker at a time has a prediction, and what a late one brings is dropped, on both engines."""

from __future__ import annotations

import asyncio
import math

import pytest

from castmate.errors import Unavailable
from castmate.jobs.claims import Claims
from castmate.jobs.ledger import Ledger
from castmate.jobs.predictions import Outcome, State
from tests.castmate.jobs.claiming import RESULT, claim_one
from tests.castmate.jobs.conftest import Clock, Submit

pytestmark = pytest.mark.anyio


async def test_claims_made_at_once_never_share_a_prediction(claims: Claims, submit: Submit) -> None:
    await asyncio.gather(*(submit() for _ in range(40)))
    found = await asyncio.gather(*(claims.claim(f"worker {n}", 3) for n in range(20)))
    claimed = [claim.id for batch in found for claim in batch]
    assert len(claimed) == len(set(claimed)) == 40


async def test_a_running_prediction_is_asked_to_stop_and_its_worker_hears_of_it(
    ledger: Ledger, claims: Claims, submit: Submit
) -> None:
    await submit()
    claim = await claim_one(claims)
    assert await claims.keep_alive("me", {claim.id: 1}) == {claim.id: False}
    asked = await ledger.cancel(claim.id)
    assert (asked.state, asked.cancel_requested) == (State.PROCESSING, True)
    assert await claims.keep_alive("me", {claim.id: 1}) == {claim.id: True}


async def test_it_is_known_when_the_next_lease_may_end(
    claims: Claims, submit: Submit, clock: Clock
) -> None:
    assert await claims.first_end_in_s() == math.inf
    await submit()
    await submit()
    claim = await claim_one(claims, "silent")
    clock.now += 4
    await claim_one(claims, "later")
    assert await claims.first_end_in_s() == 6
    await claims.keep_alive("silent", {claim.id: claim.attempt})
    assert await claims.first_end_in_s() == 10


async def test_the_work_of_a_silent_worker_is_given_to_another_and_its_late_result_is_dropped(
    ledger: Ledger, claims: Claims, submit: Submit, clock: Clock
) -> None:
    prediction = await submit()
    zombie = await claim_one(claims, "zombie")
    clock.now += 9
    assert await claims.recover() == 0
    clock.now += 2
    assert await claims.recover() == 1
    claim = await claim_one(claims, "survivor")
    assert (claim.id, claim.attempt) == (prediction.id, 2)
    assert not await claims.complete(zombie, RESULT)
    assert not await claims.fail(zombie, Unavailable("Late."))
    assert not await claims.release(zombie)
    assert await claims.keep_alive("zombie", {zombie.id: 1}) == {}
    assert (await ledger.get(prediction.id)).state == State.PROCESSING
    assert await claims.complete(claim, RESULT)
    assert not await claims.complete(zombie, RESULT)
    outcomes = [attempt.outcome for attempt in (await ledger.get(prediction.id)).attempts]
    assert outcomes == [Outcome.DIED, Outcome.COMPLETED]


async def test_a_worker_that_claims_its_own_lost_work_again_is_fenced_like_any_other(
    claims: Claims, submit: Submit, clock: Clock
) -> None:
    await submit()
    first = await claim_one(claims)
    clock.now += 11
    await claims.recover()
    second = await claim_one(claims)
    assert await claims.keep_alive("me", {first.id: first.attempt}) == {}
    assert not await claims.complete(first, RESULT)
    assert await claims.complete(second, RESULT)


async def test_a_worker_that_keeps_its_lease_keeps_its_work(
    claims: Claims, submit: Submit, clock: Clock
) -> None:
    await submit()
    claim = await claim_one(claims)
    for _ in range(5):
        clock.now += 8
        await claims.keep_alive("me", {claim.id: 1})
        assert await claims.recover() == 0
    assert await claims.complete(claim, RESULT)


async def test_a_prediction_that_kills_three_workers_fails_and_says_so(
    ledger: Ledger, claims: Claims, submit: Submit, clock: Clock
) -> None:
    prediction = await submit()
    for _ in range(3):
        await claim_one(claims, "victim")
        clock.now += 11
        assert await claims.recover() == 1
    found = await ledger.get(prediction.id)
    assert found.state == State.FAILED
    assert found.error is not None
    assert found.error["code"] == "interrupted"
    assert "3 times; the last was victim" in found.error["message"]
    assert await claims.claim("me", 1) == []


async def test_work_that_is_given_back_in_order_keeps_its_turn_and_is_no_death(
    ledger: Ledger, claims: Claims, submit: Submit
) -> None:
    prediction = await submit()
    await submit()
    for _ in range(4):
        assert await claims.release(await claim_one(claims))
    claim = await claim_one(claims)
    assert (claim.id, claim.attempt) == (prediction.id, 5)


async def test_a_cancelled_prediction_whose_worker_dies_is_not_made_again(
    ledger: Ledger, claims: Claims, submit: Submit, clock: Clock
) -> None:
    prediction = await submit()
    await claim_one(claims)
    await ledger.cancel(prediction.id)
    clock.now += 11
    await claims.recover()
    assert (await ledger.get(prediction.id)).state == State.CANCELLED


async def test_work_whose_lease_was_written_before_the_clock_was_set_back_is_taken_over(
    ledger: Ledger, claims: Claims, submit: Submit, clock: Clock
) -> None:
    prediction = await submit()
    await claim_one(claims)
    clock.now -= 3600
    assert await claims.recover() == 1
    assert (await ledger.get(prediction.id)).state == State.CREATED
    assert await claims.recover() == 0


async def test_a_lease_that_has_just_begun_is_not_taken_for_one_of_another_time(
    claims: Claims, submit: Submit
) -> None:
    await submit()
    await claim_one(claims)
    assert await claims.recover() == 0
