"""What no client can draw waits until one can, and a finished picture until it can be stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from castmate.clients.base import Client, Progress
from castmate.errors import CastmateError, Overloaded, Unavailable
from castmate.images import Reference
from castmate.jobs.claims import Claims
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from castmate.jobs.predictions import Outcome, State
from castmate.jobs.queue import Limits
from castmate.jobs.storage import Storage
from castmate.jobs.worker import Worker
from castmate.schema import GenerateResult
from tests.castmate.jobs.claiming import claim_one
from tests.castmate.jobs.conftest import Clock, Submit, submitter
from tests.doubles import FlatClient
from tests.fakes.paid import PaidClient

pytestmark = pytest.mark.anyio

StartWorker = Callable[..., Worker]
DOWN = Unavailable("The GPU is down.")


class FailingClient(FlatClient):
    """Cannot draw the first few times."""

    def __init__(self, *errors: CastmateError) -> None:
        super().__init__()
        self.errors = list(errors)
        self.calls = 0

    async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return await super().generate(*args, **kwargs)


@pytest.fixture
async def start(running: Ledger) -> AsyncIterator[StartWorker]:
    workers: list[Worker] = []

    def call(client: Client, **options: Any) -> Worker:
        workers.append(Worker(running, client, **options))
        workers[-1].start()
        return workers[-1]

    yield call
    for worker in workers:
        await worker.drain()


@pytest.fixture
async def running(tmp_path: Path, storage: Storage) -> AsyncIterator[Ledger]:
    """A ledger whose clock moves by itself."""
    database = await open_database(f"sqlite:///{tmp_path / 'running.sqlite3'}")
    yield Ledger(database, storage, Limits(lease_s=2))
    await database.aclose()


async def test_what_no_client_can_draw_waits_and_is_drawn_once_one_can(
    running: Ledger, reference: Reference, start: StartWorker
) -> None:
    start(FailingClient(DOWN, Overloaded("Full.", retry_after_s=0.1)))
    prediction = await submitter(running, reference)()
    found = await running.wait(prediction.id, 10)
    assert found.state is State.COMPLETED
    outcomes = [attempt.outcome for attempt in found.attempts]
    assert outcomes == [Outcome.DEFERRED, Outcome.DEFERRED, Outcome.COMPLETED]
    assert found.waits_for is None


async def test_a_caller_in_the_same_process_is_told_what_it_waits_for(
    running: Ledger, reference: Reference, start: StartWorker
) -> None:
    seen: list[Progress] = []
    prediction = await submitter(running, reference)()
    waiting = asyncio.create_task(running.wait(prediction.id, 10, seen.append))
    await asyncio.sleep(0)
    start(FailingClient(DOWN))
    await waiting
    assert seen[0] == Progress(0, 0, "The GPU is down.")


async def test_while_no_client_draws_the_others_are_not_tried_one_after_another(
    running: Ledger, reference: Reference, start: StartWorker
) -> None:
    submit = submitter(running, reference)
    waiting = [await submit() for _ in range(6)]
    client = FailingClient(DOWN, DOWN)
    start(client, slots=3)
    found = await asyncio.gather(*(running.wait(one.id, 20) for one in waiting))
    assert {one.state for one in found} == {State.COMPLETED}
    # All that was begun before the first failure was known, and one at a time after that.
    assert sum(len(one.attempts) for one in found) == 6 + 2


async def test_nothing_is_claimed_while_the_client_says_that_it_rests(
    running: Ledger, reference: Reference, start: StartWorker
) -> None:
    class RestingClient(FlatClient):
        ready_in_s = 0.3

    client = RestingClient()
    start(client)
    prediction = await submitter(running, reference)()
    assert (await running.wait(prediction.id, 0.1)).attempt == 0
    client.ready_in_s = 0.0
    assert (await running.wait(prediction.id, 10)).attempt == 1


async def test_a_deferred_prediction_keeps_its_turn_and_rests_for_a_quarter_of_its_wait(
    ledger: Ledger, claims: Claims, submit: Submit, clock: Clock
) -> None:
    first, second = await submit(), await submit()
    began, pauses = clock.now, []
    for _ in range(26):
        claim = await claim_one(claims)
        assert claim.id == first.id
        pause_s = await claims.defer(claim, Unavailable("Down."), 3600)
        assert pause_s is not None
        assert pause_s == pytest.approx(min(max(0.5, (clock.now - began) / 4), 30))
        pauses.append(pause_s)
        waiting = await ledger.get(first.id)
        assert waiting.state is State.CREATED
        assert waiting.waits_for is not None
        assert waiting.waits_for["message"] == "Down."
        assert waiting.not_before == clock.now + pause_s
        clock.now += pause_s
    assert (pauses[0], pauses[-1]) == (0.5, 30)
    claim = await claim_one(claims)
    await claims.defer(claim, Unavailable("Down."), 3600)
    assert (await claim_one(claims)).id == second.id, "those behind it are not held up"


async def test_a_rest_that_was_written_before_the_clock_was_set_back_is_over(
    claims: Claims, submit: Submit, clock: Clock
) -> None:
    prediction = await submit()
    await claims.defer(await claim_one(claims), DOWN, 3600)
    assert await claims.claim("me", 1) == []
    clock.now -= 3600
    assert (await claim_one(claims)).id == prediction.id


async def test_it_fails_once_it_has_waited_for_as_long_as_it_may_with_every_reason(
    ledger: Ledger, claims: Claims, submit: Submit, clock: Clock
) -> None:
    prediction = await submit()
    causes = {"triton": Unavailable("Cannot be reached."), "local": Unavailable("No bundle.")}
    reason = "No client could make the picture. triton: Cannot be reached. local: No bundle."
    for wait_s in (100, 100):
        claim = await claim_one(claims)
        await claims.defer(claim, Unavailable(reason, causes=causes), wait_s)
        clock.now += 100
    found = await ledger.get(prediction.id)
    assert found.state is State.FAILED
    assert found.error is not None
    assert found.error["message"].startswith("It waited 100 s for a client that can draw")
    assert "CASTMATE_WAIT_S" in found.error["message"]
    assert reason in found.error["message"]
    assert found.error["causes"].keys() == causes.keys()
    assert found.error["charged"] is False


async def test_the_last_try_comes_at_the_end_of_the_wait_not_before(
    claims: Claims, submit: Submit
) -> None:
    await submit()
    assert await claims.defer(await claim_one(claims), Unavailable("Down."), 0.2) == pytest.approx(
        0.2
    )


async def test_going_back_to_wait_is_no_death_but_killing_what_draws_is(
    ledger: Ledger, claims: Claims, submit: Submit, clock: Clock
) -> None:
    prediction = await submit()
    for _ in range(5):
        await claims.defer(await claim_one(claims), Unavailable("Down."), 3600)
        clock.now += 60
    assert (await ledger.get(prediction.id)).state is State.CREATED
    for _ in range(3):
        died = Unavailable("Triton died.")
        died.died = True
        await claims.defer(await claim_one(claims), died, 3600)
        clock.now += 60
    found = await ledger.get(prediction.id)
    assert found.state is State.FAILED
    assert found.error is not None
    assert found.error["code"] == "interrupted"
    assert "died 3 times" in found.error["message"]
    assert "Triton died." in found.error["message"]


async def test_a_zombie_defers_nothing_and_a_cancelled_one_ends(
    ledger: Ledger, claims: Claims, submit: Submit, clock: Clock
) -> None:
    prediction = await submit()
    zombie = await claim_one(claims)
    clock.now += 11
    await claims.recover()
    assert await claims.defer(zombie, DOWN, 3600) is None
    claim = await claim_one(claims)
    await ledger.cancel(prediction.id)
    assert await claims.defer(claim, DOWN, 3600) is None
    assert (await ledger.get(prediction.id)).state is State.CANCELLED


async def test_one_who_waits_in_person_is_told_at_once(
    running: Ledger, reference: Reference, start: StartWorker
) -> None:
    worker = start(FailingClient(DOWN), own=())
    request = (await submitter(running, reference)()).request
    own = await worker.submit(request, reference)
    found = await running.wait(own.id, 10)
    assert found.error is not None
    assert found.error["message"] == "The GPU is down."


async def test_a_finished_picture_is_kept_while_its_folder_is_away(
    running: Ledger, reference: Reference, start: StartWorker, tmp_path: Path
) -> None:
    folder, away = tmp_path / "data/files", tmp_path / "away"

    class Absent(FlatClient):
        """Draws while the folder disappears."""

        async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
            result = await super().generate(*args, **kwargs)
            folder.rename(away)
            asyncio.get_running_loop().call_later(1, away.rename, folder)
            return result

    client = Absent()
    start(client)
    prediction = await submitter(running, reference)()
    found = await running.wait(prediction.id, 10)
    assert found.state is State.COMPLETED
    assert (len(client.requests), found.attempt) == (1, 1), "it is not drawn again"
    assert await running.storage.get(found.images[0].name)


async def test_a_prediction_whose_reference_is_away_waits_for_it(
    running: Ledger, reference: Reference, start: StartWorker, tmp_path: Path
) -> None:
    folder, away = tmp_path / "data/files", tmp_path / "away"
    prediction = await submitter(running, reference)()
    folder.rename(away)
    start(FlatClient())
    waiting = await running.wait(prediction.id, 1)
    assert not waiting.state.final
    away.rename(folder)
    assert (await running.wait(prediction.id, 10)).state is State.COMPLETED


async def test_a_paid_picture_that_can_never_be_stored_fails_and_says_what_was_paid(
    running: Ledger,
    reference: Reference,
    start: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0

    async def full(*args: object) -> None:
        nonlocal calls
        calls += 1
        raise Unavailable("The storage failed: No space left on device.")

    monkeypatch.setattr("castmate.jobs.worker._IMPATIENT_S", 1.0)
    prediction = await submitter(running, reference)()
    running.limits = Limits(lease_s=2, wait_s=1)
    start(PaidClient())
    monkeypatch.setattr(running.storage, "put", full)
    found = await running.wait(prediction.id, 10)
    assert found.error is not None
    assert calls > 1
    assert "was drawn and $0.10 was paid for it" in found.error["message"]
    assert "No space left on device" in found.error["message"]
    assert found.error["charged"] is True
