"""From a submit to stored pictures: progress, cancellation, failures, a stop in order, a zombie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from castmate.clients.base import Client, Progress
from castmate.errors import BudgetExceeded, Cancelled, ImageRejected, MaybeCharged
from castmate.images import Reference
from castmate.jobs.budget import Budget, Caps
from castmate.jobs.claims import Claims
from castmate.jobs.database import Database
from castmate.jobs.ledger import Ledger
from castmate.jobs.predictions import Outcome, State
from castmate.jobs.queue import Limits
from castmate.jobs.storage import Storage
from castmate.jobs.worker import Worker
from castmate.schema import GenerateResult
from tests.castmate.jobs.conftest import Submit, soon, submitter
from tests.doubles import FlatClient, StuckClient
from tests.fakes.paid import PaidClient

pytestmark = pytest.mark.anyio

StartWorker = Callable[..., Worker]


@pytest.fixture
def ledger(database: Database, storage: Storage) -> Ledger:
    """Its clock moves by itself."""
    return Ledger(database, storage, Limits(lease_s=2))


@pytest.fixture
def clock() -> None:
    """The real one."""
    return


@pytest.fixture
async def start(ledger: Ledger) -> AsyncIterator[StartWorker]:
    """Starts workers, which end with the test."""
    workers: list[Worker] = []

    def call(client: Client, **options: Any) -> Worker:
        workers.append(Worker(ledger, client, **options))
        workers[-1].start()
        return workers[-1]

    yield call
    for worker in workers:
        await worker.drain()


async def test_a_submitted_prediction_is_made_and_its_pictures_are_in_the_storage(
    ledger: Ledger, submit: Submit, start: StartWorker, reference: Reference
) -> None:
    client = FlatClient(warnings=("odd",))
    start(client)
    prediction = await submit(num_images=2, seed=7)
    found = await ledger.wait(prediction.id, 10)
    assert found.state == State.COMPLETED
    assert found.result is not None
    assert [image.seed for image in found.result.images] == [7, 8]
    assert [image.name for image in found.result.images] == [
        f"outputs/{prediction.id}-1/{number}.png" for number in (0, 1)
    ]
    assert (found.result.client, found.result.warnings) == ("flat", ("odd",))
    for image in found.result.images:
        assert len(await ledger.storage.get(image.name)) == image.num_bytes
    assert client.references == [reference]


async def test_progress_reaches_a_caller_in_the_same_process_in_order(
    ledger: Ledger, submit: Submit, start: StartWorker
) -> None:
    seen: list[Progress] = []
    prediction = await submit()
    waiting = asyncio.create_task(ledger.wait(prediction.id, 10, seen.append))
    await asyncio.sleep(0)
    start(FlatClient())
    await waiting
    assert [progress.step for progress in seen] == [0, 1, 2]


async def test_a_worker_begins_at_once_with_what_is_submitted_through_it_and_leaves_the_rest(
    ledger: Ledger, submit: Submit, start: StartWorker, reference: Reference
) -> None:
    waiting = await submit()
    worker = start(FlatClient(), own=())
    own = await worker.submit(waiting.request, reference)
    assert (own.state, own.attempt) == (State.PROCESSING, 1)
    assert (await ledger.wait(own.id, 10)).state == State.COMPLETED
    assert (await ledger.get(waiting.id)).state == State.CREATED


async def test_a_worker_takes_its_own_prediction_back_where_nobody_else_does(
    ledger: Ledger, start: StartWorker, submit: Submit, reference: Reference
) -> None:
    client = StuckClient()
    worker = start(client, own=())
    own = await worker.submit((await submit()).request, reference)
    await asyncio.wait_for(client.started.wait(), 10)
    client.started.clear()
    ahead = Claims(ledger.database, Limits(lease_s=-10))
    await ahead.keep_alive(worker.owner, {own.id: 1})  # as if it had been silent for long
    assert await ahead.recover() == 1
    await asyncio.wait_for(client.started.wait(), 10)
    found = await ledger.get(own.id)
    assert (found.state, found.attempt) == (State.PROCESSING, 2)


async def test_as_many_as_there_are_slots_are_made_at_a_time(
    ledger: Ledger, submit: Submit, start: StartWorker
) -> None:
    start(StuckClient(), slots=2)
    await asyncio.gather(*(submit() for _ in range(4)))
    for _ in range(20):
        await ledger.list()
    running = await ledger.list(state=State.PROCESSING)
    assert len(running) == 2


async def test_forty_predictions_are_each_made_once_by_two_workers(
    ledger: Ledger, submit: Submit, start: StartWorker
) -> None:
    clients = [FlatClient(), FlatClient()]
    for client in clients:
        start(client, slots=3)
    made = await asyncio.gather(*(submit() for _ in range(40)))
    found = await asyncio.gather(*(ledger.wait(one.id, 30) for one in made))
    assert {one.state for one in found} == {State.COMPLETED}
    seeds = [request.seed for client in clients for request in client.requests]
    assert sorted(seeds) == list(range(40))


async def test_cancelling_stops_the_client_at_once(
    ledger: Ledger, submit: Submit, start: StartWorker
) -> None:
    client = StuckClient()
    start(client)
    prediction = await submit()
    await asyncio.wait_for(client.started.wait(), 10)
    await ledger.cancel(prediction.id)
    found = await ledger.wait(prediction.id, 10)
    assert (found.state, found.attempts[0].outcome) == (State.CANCELLED, Outcome.CANCELLED)
    assert client.cancelled.is_set()


async def test_a_worker_goes_on_after_a_cancellation(
    ledger: Ledger, submit: Submit, start: StartWorker
) -> None:
    client = StuckClient()
    start(client)
    for _ in range(3):
        client.started.clear()
        prediction = await submit()
        await asyncio.wait_for(client.started.wait(), 10)
        await ledger.cancel(prediction.id)
        assert (await ledger.wait(prediction.id, 10)).state == State.CANCELLED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BudgetExceeded("The cap."), "budget_exceeded"),
        (ImageRejected("no face"), "image_rejected"),
        (MaybeCharged("Lost."), "maybe_charged"),
    ],
)
async def test_an_error_of_the_client_is_the_predictions_reason(
    ledger: Ledger, submit: Submit, start: StartWorker, error: Exception, code: str
) -> None:
    start(FlatClient(error))
    found = await ledger.wait((await submit()).id, 10)
    assert found.state == State.FAILED
    assert found.error is not None
    assert (found.error["code"], found.error["message"]) == (code, str(error))


async def test_a_bug_in_the_client_fails_its_prediction_alone_and_shows_no_secret(
    ledger: Ledger, submit: Submit, start: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start(FlatClient(RuntimeError("key=sk-123")))
    found = await ledger.wait((await submit()).id, 10)
    assert found.error is not None
    assert "RuntimeError" in found.error["message"]
    assert "sk-123" not in found.error["message"]
    assert "sk-123" in caplog.text
    await worker.drain()
    start(FlatClient())
    assert (await ledger.wait((await submit()).id, 10)).state == State.COMPLETED


async def test_a_stop_in_order_lets_running_work_end(
    ledger: Ledger, submit: Submit, start: StartWorker
) -> None:
    going = asyncio.Event()

    class SlowClient(StuckClient):
        async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
            self.started.set()
            await going.wait()
            return await FlatClient.generate(self, *args, **kwargs)

    client = SlowClient()
    worker = start(client)
    first, second = await submit(), await submit()
    await asyncio.wait_for(client.started.wait(), 10)
    draining = asyncio.create_task(worker.drain(30))
    await asyncio.sleep(0)
    going.set()
    await draining
    assert (await ledger.get(first.id)).state == State.COMPLETED
    assert (await ledger.get(second.id)).state == State.CREATED


async def test_what_is_about_to_stop_begins_nothing_more_and_leaves_it_to_others(
    ledger: Ledger, submit: Submit, start: StartWorker
) -> None:
    client = StuckClient()
    worker = start(client, slots=2)
    first = await submit()
    await asyncio.wait_for(client.started.wait(), 10)
    worker.finish()
    second = await submit()
    start(FlatClient())
    assert (await ledger.wait(second.id, 10)).state == State.COMPLETED
    assert (await ledger.get(first.id)).attempts[0].outcome is None
    assert worker.running == 1


async def test_a_stop_in_order_gives_back_what_does_not_end_in_time(
    ledger: Ledger, submit: Submit, start: StartWorker
) -> None:
    client = StuckClient()
    worker = start(client)
    prediction = await submit()
    await asyncio.wait_for(client.started.wait(), 10)
    await worker.drain()
    found = await ledger.get(prediction.id)
    assert (found.state, found.attempts[0].outcome) == (State.CREATED, Outcome.RELEASED)
    start(FlatClient())
    assert (await ledger.wait(prediction.id, 10)).state == State.COMPLETED


async def test_a_client_that_is_closed_during_a_stop_gives_its_work_back(
    ledger: Ledger, submit: Submit, start: StartWorker
) -> None:
    class ClosingClient(StuckClient):
        async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
            try:
                return await super().generate(*args, **kwargs)
            except asyncio.CancelledError:
                raise Cancelled("Stopped after 1 of 2 steps.") from None

    client = ClosingClient()
    worker = start(client)
    prediction = await submit()
    await asyncio.wait_for(client.started.wait(), 10)
    await worker.drain()
    assert (await ledger.get(prediction.id)).state == State.CREATED


@pytest.mark.slow
async def test_a_long_prediction_is_kept_alive_far_beyond_its_lease(
    database: Database, storage: Storage, reference: Reference
) -> None:
    ledger = Ledger(database, storage, Limits(lease_s=1))
    workers = [Worker(ledger, StuckClient()) for _ in range(2)]
    for worker in workers:
        worker.start()
    prediction = await submitter(ledger, reference)()
    await asyncio.sleep(3)  # three leases: time itself is what is tested
    assert (await ledger.get(prediction.id)).attempt == 1
    await asyncio.gather(*(worker.drain() for worker in workers))


async def test_work_of_a_dead_worker_is_taken_over_by_itself(
    ledger: Ledger, submit: Submit, start: StartWorker
) -> None:
    prediction = await submit()
    await Claims(ledger.database, Limits(lease_s=-1)).claim("dead", 1)
    start(FlatClient())
    found = await ledger.wait(prediction.id, 10)
    assert [attempt.outcome for attempt in found.attempts] == [Outcome.DIED, Outcome.COMPLETED]


async def test_a_worker_that_lost_its_lease_stops_its_client_and_changes_nothing(
    ledger: Ledger, submit: Submit, start: StartWorker
) -> None:
    client = StuckClient()
    worker = start(client)
    prediction = await submit()
    await asyncio.wait_for(client.started.wait(), 10)
    client.started.clear()
    ahead = Claims(ledger.database, Limits(lease_s=-10))
    held = {prediction.id: 1}
    await ahead.keep_alive(worker.owner, held)  # as if it had been silent for long
    assert await ahead.recover() == 1
    (claim,) = await Claims(ledger.database, ledger.limits).claim("successor", 1)
    await asyncio.wait_for(client.cancelled.wait(), 10)
    found = await ledger.get(prediction.id)
    assert (found.state, found.attempt) == (State.PROCESSING, claim.attempt)


async def test_a_client_that_costs_money_pays_through_the_budget(
    ledger: Ledger, submit: Submit, start: StartWorker
) -> None:
    budget = Budget(ledger.database, Caps(per_day=0.1))
    start(PaidClient(), budget=budget)
    assert (await ledger.wait((await submit()).id, 10)).state == State.COMPLETED
    second = await ledger.wait((await submit()).id, 10)
    assert second.error is not None
    assert (second.error["code"], second.error["charged"]) == ("budget_exceeded", False)
    assert [spent.payment.remote_id for spent in await budget.spending()] == ["abc"]


async def test_a_prediction_whose_reference_is_gone_says_what_to_do(
    ledger: Ledger, submit: Submit, start: StartWorker
) -> None:
    prediction = await submit()
    await ledger.storage.delete(prediction.input)
    start(FlatClient())
    found = await ledger.wait(prediction.id, 10)
    assert found.error is not None
    assert "submit it again" in found.error["message"]


async def test_nobody_polls_between_a_submit_and_its_waiting_caller_in_one_process(
    ledger: Ledger, submit: Submit, start: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = ledger.database.hub
    monkeypatch.setattr(hub, "notify_all", lambda: None)  # what looking around would call
    start(FlatClient())
    await soon(lambda: "work" in hub._signals)
    for _ in range(3):
        assert (await ledger.wait((await submit()).id, 10)).state == State.COMPLETED
