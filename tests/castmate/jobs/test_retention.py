"""A sweep removes what is old and needed by nobody, and nothing else."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from castmate.clients.payments import PaymentState
from castmate.errors import PredictionNotFound, Unavailable
from castmate.images import Reference
from castmate.jobs.budget import Budget
from castmate.jobs.claims import Claims
from castmate.jobs.ledger import Ledger
from castmate.jobs.predictions import Prediction, State, StoredResult
from castmate.jobs.retention import Swept, sweep
from castmate.jobs.storage import Storage, output_name
from tests.castmate.jobs.conftest import Clock, Submit, age

pytestmark = pytest.mark.anyio

DAY_S = 86_400.0
RESULT = StoredResult((), "flat", "flat", {}, (), 0.0)


@pytest.fixture
def files(storage: Storage, clock: Clock, tmp_path: Path) -> Any:
    """Writes a file that is as old as the test's clock says, and lists all."""
    folder = tmp_path / "data/files"

    class Files:
        async def write(self, name: str) -> str:
            await storage.put(name, b"x")
            os.utime(folder / name, (clock.now, clock.now))
            return name

        def age(self) -> None:
            age(folder, clock)

        def names(self) -> set[str]:
            found = filter(Path.is_file, folder.rglob("*"))
            return {str(path.relative_to(folder)) for path in found}

    return Files()


@pytest.fixture
def finish(claims: Claims, submit: Submit, files: Any) -> Any:
    """Makes a prediction that is completed, with a picture and its preview."""

    async def call(**options: Any) -> Prediction:
        prediction = await submit(**options)
        (claim,) = await claims.claim("me", 1)
        name = await files.write(output_name(claim.id, claim.attempt, 0, "png"))
        await files.write(f"previews/{name}.jpg")
        assert await claims.complete(claim, RESULT)
        files.age()
        return prediction

    return call


async def test_old_predictions_go_with_their_files_and_young_ones_stay(
    ledger: Ledger, finish: Any, files: Any, clock: Clock
) -> None:
    old = await finish()
    clock.now += 8 * DAY_S
    await files.write("outputs/notes.txt")  # not ours
    young = await finish()
    clock.now += 2 * DAY_S
    await sweep(ledger, keep_s=9 * DAY_S)
    with pytest.raises(PredictionNotFound):
        await ledger.get(old.id)
    assert (await ledger.get(young.id)).state == State.COMPLETED
    assert files.names() == {
        "outputs/notes.txt",
        young.input,
        f"outputs/{young.id}-1/0.png",
        f"previews/outputs/{young.id}-1/0.png.jpg",
    }
    assert await sweep(ledger, keep_s=9 * DAY_S) == Swept(0, 0)


async def test_what_is_waiting_or_running_is_never_swept_however_old(
    ledger: Ledger, claims: Claims, submit: Submit, files: Any, clock: Clock
) -> None:
    running = await submit()
    await claims.claim("me", 1)
    await files.write(output_name(running.id, 1, 0, "png"))
    waiting = await submit()
    files.age()
    before = files.names()
    clock.now += 100 * DAY_S
    assert await sweep(ledger, keep_s=0) == Swept(0, 0)
    assert files.names() == before
    assert await ledger.storage.get(waiting.input)


async def test_the_pictures_of_lost_attempts_go_after_a_day(
    ledger: Ledger, claims: Claims, submit: Submit, files: Any, clock: Clock
) -> None:
    await submit()
    (zombie,) = await claims.claim("zombie", 1)
    clock.now += 11
    await claims.recover()
    (claim,) = await claims.claim("survivor", 1)
    lost = await files.write(output_name(zombie.id, zombie.attempt, 0, "png"))
    kept = await files.write(output_name(claim.id, claim.attempt, 0, "png"))
    await claims.complete(claim, RESULT)
    await sweep(ledger, keep_s=9 * DAY_S)
    assert lost in files.names()
    clock.now += DAY_S + 1
    await sweep(ledger, keep_s=9 * DAY_S)
    assert lost not in files.names()
    assert kept in files.names()


async def test_the_pictures_of_a_failed_prediction_go_and_its_reason_stays(
    ledger: Ledger, claims: Claims, submit: Submit, files: Any, clock: Clock
) -> None:
    prediction = await submit(num_images=2)
    (claim,) = await claims.claim("me", 1)
    first = await files.write(output_name(claim.id, claim.attempt, 0, "png"))
    await claims.fail(claim, Unavailable("The second one failed."))
    clock.now += DAY_S + 1
    await sweep(ledger, keep_s=9 * DAY_S)
    assert first not in files.names()
    assert (await ledger.get(prediction.id)).error is not None


async def test_a_reference_stays_as_long_as_any_prediction_needs_it(
    ledger: Ledger, finish: Any, submit: Submit, files: Any, clock: Clock
) -> None:
    old = await finish()
    waiting = await submit()
    files.age()
    assert waiting.input == old.input
    clock.now += 50 * DAY_S
    await sweep(ledger, keep_s=DAY_S)
    assert files.names() == {waiting.input}


async def test_a_reference_of_today_or_yesterday_stays_for_a_submit_that_is_on_its_way(
    ledger: Ledger, reference: Reference, files: Any, clock: Clock
) -> None:
    async with ledger.pictures.bringing(reference.data, reference.sha256, "ann") as brought:
        files.age()
        clock.now += 1.4 * DAY_S
        await sweep(ledger, keep_s=0)
        assert files.names() == {brought.name}
        clock.now += 1 * DAY_S
        await sweep(ledger, keep_s=0)
        assert files.names() == set()


async def test_payments_outlive_their_predictions(
    ledger: Ledger, claims: Claims, submit: Submit, clock: Clock
) -> None:
    await submit()
    (claim,) = await claims.claim("me", 1)
    payments = Budget(ledger.database).payments(claim)
    await payments.reserve(0, "wavespeed", 0.1)
    await payments.move(0, PaymentState.SETTLED)
    await claims.complete(claim, RESULT)
    clock.now += 100 * DAY_S
    assert (await sweep(ledger, keep_s=DAY_S)).predictions == 1
    assert len(await Budget(ledger.database).spending()) == 1


@pytest.mark.slow
async def test_more_than_one_batch_is_swept(ledger: Ledger, submit: Submit, clock: Clock) -> None:
    made = await asyncio.gather(*(submit() for _ in range(205)))
    await asyncio.gather(*(ledger.cancel(prediction.id) for prediction in made))
    clock.now += 3 * DAY_S
    assert await sweep(ledger, keep_s=DAY_S) == Swept(predictions=205, files=1)
