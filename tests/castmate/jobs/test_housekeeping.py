"""What is deleted is kept for a day and can be restored; then nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from castmate.errors import ImageRejected, InvalidRequest
from castmate.images import Reference
from castmate.jobs.characters import KEPT_S, Character, Characters
from castmate.jobs.ledger import Ledger
from castmate.jobs.names import named, no_such_name
from castmate.jobs.outputs import Outputs
from castmate.jobs.predictions import Prediction
from castmate.jobs.retention import sweep
from castmate.jobs.worker import Worker
from tests.castmate.jobs.conftest import Clock, Submit
from tests.doubles import FlatClient, picture

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
def saved(ledger: Ledger) -> Characters:
    return Characters(ledger.database, ledger.pictures)


@pytest.fixture
def outputs(ledger: Ledger) -> Outputs:
    return Outputs(ledger)


async def references(*colours: str) -> AsyncIterator[Reference]:
    for colour in colours:
        yield Reference.from_bytes(picture(colour=colour), colour)


async def drawn(ledger: Ledger, submit: Submit, num_images: int) -> Prediction:
    prediction = await submit(num_images=num_images)
    worker = Worker(ledger, FlatClient())
    worker.start()
    async with asyncio.timeout(20):
        done = await ledger.wait(prediction.id)
    await worker.drain()
    return done


async def test_a_discarded_character_is_away_for_everyone_and_comes_back_within_a_day(
    ledger: Ledger, saved: Characters, clock: Clock
) -> None:
    fox = await saved.create("Fox", references("red"), key_name="ann")
    await saved.discard(fox.id, "ann")
    assert await saved.find(fox.id, "ann") is None
    assert await saved.list("ann") == []
    with pytest.raises(InvalidRequest, match="no character"):
        await saved.rename(fox.id, "Reynard", "ann")
    clock.now += KEPT_S - 1
    await sweep(ledger)
    await saved.restore(fox.id, "ann")
    assert await saved.find(fox.id, "ann") == fox
    await saved.discard(fox.id, "ann")
    clock.now += KEPT_S + 1
    await sweep(ledger)
    with pytest.raises(InvalidRequest, match="no character"):
        await saved.restore(fox.id, "ann")
    assert not await ledger.storage.exists(fox.pictures[0])


async def test_saving_a_discarded_character_again_brings_it_back(saved: Characters) -> None:
    fox = await saved.create("Fox", references("red"), key_name="ann")
    await saved.discard(fox.id)
    again = await saved.create("Fox", references("red"), key_name="ann")
    assert again.id == fox.id
    assert [one.id for one in await saved.list("ann")] == [fox.id]


async def test_nobody_changes_what_is_another_keys(
    ledger: Ledger, saved: Characters, outputs: Outputs, submit: Submit
) -> None:
    fox = await saved.create("Fox", references("red"), key_name="ann")
    for change in (saved.discard, saved.restore, saved.delete):
        with pytest.raises(InvalidRequest, match="no character"):
            await change(fox.id, "bob")
    done = await drawn(ledger, submit, 1)
    for change_picture in (outputs.discard, outputs.restore):
        with pytest.raises(FileNotFoundError):
            await change_picture(done.id, 0, "bob")


async def test_a_renamed_character_keeps_its_id_and_its_new_name_is_what_counts(
    saved: Characters,
) -> None:
    fox = await saved.create("Fox", references("red", "blue"), key_name="ann")
    renamed = await saved.rename(fox.id, "Reynard", "ann")
    assert (renamed.id, renamed.name, renamed.pictures) == (fox.id, "Reynard", fox.pictures)
    same = await saved.create("Reynard", references("red", "blue"), key_name="ann")
    assert (same.id, same.known) == (fox.id, True)
    other = await saved.create("Fox", references("red", "blue"), key_name="ann")
    with pytest.raises(InvalidRequest, match=f"is {fox.id} already"):
        await saved.rename(other.id, "Reynard", "ann")


async def test_one_of_several_pictures_is_discarded_restored_and_removed_alone(
    ledger: Ledger, outputs: Outputs, submit: Submit, clock: Clock
) -> None:
    done = await drawn(ledger, submit, 2)
    first, second = (image.name for image in done.images)
    await outputs.rename(done.id, 1, "The good one")
    await outputs.discard(done.id, 0)
    found = await ledger.get(done.id)
    assert [(image.name, image.title) for image in found.shown] == [(second, "The good one")]
    await outputs.restore(done.id, 0)
    assert len((await ledger.get(done.id)).shown) == 2
    await outputs.discard(done.id, 0)
    clock.now += KEPT_S + 1
    await sweep(ledger)
    assert not await ledger.storage.exists(first)
    assert await ledger.storage.exists(second)
    with pytest.raises(FileNotFoundError):
        await outputs.restore(done.id, 0)
    await outputs.discard(done.id, 1)
    clock.now += KEPT_S + 1
    await sweep(ledger)
    assert not await ledger.storage.exists(second)
    assert await ledger.list() == []


def character(name: str, number: int = 1) -> Character:
    return Character(f"chr_{number:016x}", "ann", name, ("inputs/a", "inputs/b"), 1e9)


def test_a_name_is_found_in_any_case_and_however_its_accents_are_written() -> None:
    zoe = character("Zo\u00eb")
    for text in ("zo\u00eb", "ZO\u00cb", "zoe\u0308", " Zo\u00eb "):
        assert named([zoe], text) == (zoe, None)
    assert named([zoe], "zo\u00eb/2") == (zoe, 2)
    assert named([zoe], "zoe") is None


def test_a_name_that_several_have_is_refused_with_their_ids() -> None:
    twins = [character("Mira", 1), character("mira", 2)]
    with pytest.raises(ImageRejected) as refused:
        named(twins, "MIRA")
    (problem,) = refused.value.problems
    assert twins[0].id in problem.allowed
    assert twins[1].id in problem.allowed


def test_an_unknown_name_gives_the_nearest_or_what_there_is() -> None:
    known = [character("Mira", 1), character("Rusty", 2)]
    (near,) = no_such_name(known, "Mirra", "an id").problems
    assert near.hint == "The nearest: `Mira`."
    (far,) = no_such_name(known, "Xyzzy", "an id").problems
    assert far.hint == "Saved: `Mira`, `Rusty`."
