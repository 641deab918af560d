"""What a caller of the ledger can rely on, on both engines."""

from __future__ import annotations

import asyncio

import pytest

from castmate.errors import (
    DeadlineExceeded,
    IdempotencyConflict,
    InvalidRequest,
    PredictionNotFound,
    Unavailable,
)
from castmate.jobs.claims import Claims
from castmate.jobs.database import Database, Transaction
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from castmate.jobs.predictions import Outcome, State
from castmate.jobs.queue import enqueue, lock_queue
from castmate.jobs.storage import Storage
from tests.castmate.jobs.claiming import RESULT, claim_one
from tests.castmate.jobs.conftest import Clock, Submit, ids

pytestmark = pytest.mark.anyio


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


async def test_a_waiting_prediction_is_cancelled_at_once_and_never_claimed(
    ledger: Ledger, claims: Claims, submit: Submit
) -> None:
    prediction = await submit()
    cancelled = await ledger.cancel(prediction.id)
    assert cancelled.state == State.CANCELLED
    assert cancelled.error is not None
    assert cancelled.error["code"] == "cancelled"
    assert await claims.claim("me", 1) == []


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
