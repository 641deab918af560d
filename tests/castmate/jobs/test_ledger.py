"""What a caller of the ledger can rely on, on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from castmate.errors import (
    DeadlineExceeded,
    IdempotencyConflict,
    InvalidRequest,
    Overloaded,
    PredictionNotFound,
    Unavailable,
)
from castmate.images import Reference
from castmate.jobs.claims import Claim, Claims
from castmate.jobs.database import Database, Transaction, open_database
from castmate.jobs.ledger import Ledger
from castmate.jobs.predictions import Outcome, Prediction, Priority, State, StoredResult
from castmate.jobs.queue import Limits, enqueue, lock_queue
from castmate.jobs.storage import Storage
from tests.castmate.jobs.conftest import Clock, Submit, submitter

pytestmark = pytest.mark.anyio

RESULT = StoredResult((), "flat", "flat", {"total": 12.0}, ("odd",), 0.1, 14)


@pytest.fixture
def claims(ledger: Ledger) -> Claims:
    return Claims(ledger.database, ledger.limits)


async def claim_one(claims: Claims, owner: str = "me") -> Claim:
    (claim,) = await claims.claim(owner, 1)
    return claim


async def order(claims: Claims) -> Sequence[str]:
    return [claim.id for claim in await claims.claim("me", 1000)]


def ids(predictions: Sequence[Prediction]) -> list[str]:
    return [prediction.id for prediction in predictions]


async def test_an_acknowledged_prediction_is_there_after_a_restart(
    database: Database, database_url: str, ledger: Ledger, submit: Submit
) -> None:
    prediction = await submit(prompt="running")
    await database.aclose()
    again = await open_database(database_url)
    found = await Ledger(again, ledger.storage).get(prediction.id)
    await again.aclose()
    assert (found.state, found.request.prompt) == (State.CREATED, "running")
    assert found.created == prediction.created
    assert await ledger.storage.get(found.input)


async def test_the_life_of_a_prediction_with_its_attempt_is_on_record(
    ledger: Ledger, claims: Claims, submit: Submit, clock: Clock
) -> None:
    prediction = await submit()
    clock.now += 1
    claim = await claim_one(claims)
    assert (await ledger.get(prediction.id)).state == State.PROCESSING
    clock.now += 2
    assert await claims.complete(claim, RESULT)
    found = await ledger.get(prediction.id)
    assert (found.state, found.result, found.error) == (State.COMPLETED, RESULT, None)
    now = clock.now
    assert (found.created, found.started, found.finished) == (now - 3, now - 2, now)
    (attempt,) = found.attempts
    assert (attempt.number, attempt.owner, attempt.outcome) == (1, "me", Outcome.COMPLETED)
    assert attempt.client == "flat"


async def test_a_failure_is_told_with_its_reason(
    ledger: Ledger, claims: Claims, submit: Submit
) -> None:
    prediction = await submit()
    await claims.fail(await claim_one(claims), DeadlineExceeded("Too slow."))
    found = await ledger.get(prediction.id)
    assert found.state == State.FAILED
    assert found.error == {"code": "deadline_exceeded", "message": "Too slow.", "charged": False}
    assert found.attempts[0].error == found.error


async def test_fifty_racing_submits_with_one_idempotency_key_are_one_prediction(
    ledger: Ledger, submit: Submit
) -> None:
    racing = [submit(seed=7, idempotency_key="again") for _ in range(50)]
    found = await asyncio.gather(*racing)
    assert len({prediction.id for prediction in found}) == 1
    assert len(await ledger.list()) == 1


async def test_a_seed_is_drawn_once_so_that_every_attempt_makes_the_same_picture(
    ledger: Ledger, claims: Claims, submit: Submit
) -> None:
    prediction = await submit(seed=-1, idempotency_key="again")
    assert prediction.request.seed >= 0
    assert (await submit(seed=-1, idempotency_key="again")).request == prediction.request
    assert (await claim_one(claims)).prediction.request.seed == prediction.request.seed


async def test_the_same_idempotency_key_still_answers_when_the_queue_is_full(
    database: Database, storage: Storage, reference: Reference
) -> None:
    submit = submitter(Ledger(database, storage, Limits(queue_limit=1)), reference)
    first = await submit(seed=7, idempotency_key="again")
    assert (await submit(seed=7, idempotency_key="again")).id == first.id


async def test_an_idempotency_key_for_another_request_is_refused_and_names_the_first_one(
    submit: Submit,
) -> None:
    first = await submit(seed=7, idempotency_key="again")
    with pytest.raises(IdempotencyConflict, match=f"'again'.*{first.id}"):
        await submit(seed=8, idempotency_key="again")


async def test_an_idempotency_key_belongs_to_its_api_key(submit: Submit) -> None:
    ann = await submit(seed=7, idempotency_key="again", key_name="ann")
    bob = await submit(seed=8, idempotency_key="again", key_name="bob")
    assert ann.id != bob.id


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_an_idempotency_key_of_a_wrong_length_is_refused(submit: Submit, key: str) -> None:
    with pytest.raises(InvalidRequest, match=r"`idempotency_key`.*1\.\.255"):
        await submit(idempotency_key=key)


async def test_predictions_are_seen_only_by_their_own_key(ledger: Ledger, submit: Submit) -> None:
    prediction = await submit(key_name="ann")
    assert (await ledger.get(prediction.id, "ann")).id == prediction.id
    with pytest.raises(PredictionNotFound, match=prediction.id):
        await ledger.get(prediction.id, "bob")
    with pytest.raises(PredictionNotFound):
        await ledger.cancel(prediction.id, "bob")
    assert await ledger.list(key_name="bob") == []


async def test_the_list_goes_backwards_page_by_page(
    ledger: Ledger, submit: Submit, clock: Clock
) -> None:
    made = []
    for _ in range(5):
        clock.now += 1
        made.append(await submit())
    newest = ids(made)[::-1]
    page = await ledger.list(limit=2)
    assert ids(page) == newest[:2]
    assert ids(await ledger.list(limit=9, before=page[-1].id)) == newest[2:]
    assert await ledger.list(state=State.FAILED) == []


async def test_claims_made_at_once_never_share_a_prediction(claims: Claims, submit: Submit) -> None:
    await asyncio.gather(*(submit() for _ in range(40)))
    found = await asyncio.gather(*(claims.claim(f"worker {n}", 3) for n in range(20)))
    claimed = [claim.id for batch in found for claim in batch]
    assert len(claimed) == len(set(claimed)) == 40


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


async def test_urgent_ones_go_first_and_low_ones_last(claims: Claims, submit: Submit) -> None:
    low = await submit(priority=Priority.LOW, key_name="a")
    normal = await submit(key_name="b")
    urgent = await submit(priority=Priority.URGENT, key_name="c")
    assert await order(claims) == [urgent.id, normal.id, low.id]


async def test_a_low_one_that_waited_long_enough_goes_before_new_urgent_ones(
    claims: Claims, submit: Submit, clock: Clock
) -> None:
    low = await submit(priority=Priority.LOW)
    clock.now += 61
    normal = await submit()
    urgent = await submit(priority=Priority.URGENT)
    assert (await claim_one(claims)).id == urgent.id
    clock.now += 60
    urgent = await submit(priority=Priority.URGENT)
    assert await order(claims) == [low.id, normal.id, urgent.id]


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


async def test_a_waiting_prediction_is_cancelled_at_once_and_never_claimed(
    ledger: Ledger, claims: Claims, submit: Submit
) -> None:
    prediction = await submit()
    cancelled = await ledger.cancel(prediction.id)
    assert cancelled.state == State.CANCELLED
    assert cancelled.error is not None
    assert cancelled.error["code"] == "cancelled"
    assert await claims.claim("me", 1) == []


async def test_a_running_prediction_is_asked_to_stop_and_its_worker_hears_of_it(
    ledger: Ledger, claims: Claims, submit: Submit
) -> None:
    await submit()
    claim = await claim_one(claims)
    assert await claims.keep_alive("me", {claim.id: 1}) == {claim.id: False}
    asked = await ledger.cancel(claim.id)
    assert (asked.state, asked.cancel_requested) == (State.PROCESSING, True)
    assert await claims.keep_alive("me", {claim.id: 1}) == {claim.id: True}


async def test_a_picture_that_is_finished_before_the_cancellation_is_heard_is_kept(
    ledger: Ledger, claims: Claims, submit: Submit
) -> None:
    await submit()
    claim = await claim_one(claims)
    await ledger.cancel(claim.id)
    assert await claims.complete(claim, RESULT)
    assert (await ledger.cancel(claim.id)).state == State.COMPLETED


async def test_a_failed_or_cancelled_prediction_stays_what_it_is_when_it_is_cancelled_again(
    ledger: Ledger, claims: Claims, submit: Submit
) -> None:
    first = await submit()
    await claims.fail(await claim_one(claims), Unavailable("No."))
    assert (await ledger.cancel(first.id)).state == State.FAILED
    second = await submit()
    once = await ledger.cancel(second.id)
    assert await ledger.cancel(second.id) == once


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


async def test_a_waiting_caller_is_woken_by_the_end_and_told_the_state_when_its_time_is_over(
    ledger: Ledger, claims: Claims, submit: Submit
) -> None:
    prediction = await submit()
    assert (await ledger.wait(prediction.id, 0.01)).state == State.CREATED
    waiting = asyncio.create_task(ledger.wait(prediction.id, 30))
    await claims.complete(await claim_one(claims), RESULT)
    assert (await waiting).state == State.COMPLETED
    assert (await ledger.wait(prediction.id)).state == State.COMPLETED


async def test_a_caller_in_another_process_is_woken_too(
    ledger: Ledger, claims: Claims, submit: Submit, database_url: str, storage: Storage
) -> None:
    prediction = await submit()
    elsewhere = await open_database(database_url)
    async with asyncio.timeout(10):
        waiting = asyncio.create_task(Ledger(elsewhere, storage).wait(prediction.id))
        await claims.complete(await claim_one(claims), RESULT)
        assert (await waiting).state == State.COMPLETED
    await elsewhere.aclose()


async def test_nothing_of_a_failed_transaction_is_left_and_its_neighbours_are_not_harmed(
    database: Database, ledger: Ledger, submit: Submit
) -> None:
    def fail(tx: Transaction) -> None:
        lock_queue(tx)
        enqueue(tx, {}, 0.0, 1.0)

    answers = await asyncio.gather(submit(), database.run(fail), submit(), return_exceptions=True)
    assert isinstance(answers[1], KeyError)
    assert len(await ledger.list()) == 2
