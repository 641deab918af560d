"""A character stays with its pictures until it is deleted, and then nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from castmate.errors import InvalidRequest
from castmate.images import Reference
from castmate.jobs.characters import Character, Characters
from castmate.jobs.database import Database
from castmate.jobs.ledger import Ledger
from castmate.jobs.retention import GRACE_S, Swept, sweep
from castmate.jobs.storage import INPUTS, Storage
from tests.castmate.jobs.conftest import Clock, Submit, age
from tests.doubles import picture

pytestmark = pytest.mark.anyio


@pytest.fixture
def saved(database: Database, ledger: Ledger) -> Characters:
    return Characters(database, ledger.pictures)


@pytest.fixture
def references() -> list[Reference]:
    return [Reference.from_bytes(picture(colour=colour), "fox") for colour in ("red", "blue")]


async def given(references: Sequence[Reference]) -> AsyncIterator[Reference]:
    for reference in references:
        yield reference


async def stored(storage: Storage) -> set[str]:
    return {item.name async for chunk in storage.list(INPUTS) for item in chunk}


async def test_a_deleted_character_is_gone_with_its_pictures_and_no_other_lost_one(
    saved: Characters, storage: Storage, references: list[Reference]
) -> None:
    fox = await saved.create("Fox", given(references), key_name="ann")
    same_pictures = await saved.create("Reynard", given(references), key_name="ann")
    of_another = await saved.create("Fox", given(references), key_name="bob")
    assert await saved.delete(fox.id, "ann") == fox
    assert await saved.find(fox.id, "ann") is None
    assert await saved.list("ann") == [same_pictures]
    left = {*same_pictures.pictures, *of_another.pictures}
    assert await stored(storage) == left
    for name, reference in zip(of_another.pictures, references, strict=True):
        assert await storage.get(name) == reference.data


async def test_a_deleted_character_is_made_anew_under_another_handle(
    saved: Characters, storage: Storage, references: list[Reference]
) -> None:
    fox = await saved.create("Fox", given(references), key_name="ann")
    await saved.delete(fox.id)
    again = await saved.create("Fox", given(references), key_name="ann")
    assert (again.known, again.id == fox.id) == (False, False)
    assert await stored(storage) == set(again.pictures)


async def test_a_character_of_another_key_or_an_unknown_one_cannot_be_deleted(
    saved: Characters, storage: Storage, references: list[Reference]
) -> None:
    fox = await saved.create("Fox", given(references), key_name="ann")
    for character_id, key_name in ((fox.id, "bob"), ("chr_0123456789abcdef", None)):
        with pytest.raises(InvalidRequest, match=f"`character_id`: there is no .*{character_id}"):
            await saved.delete(character_id, key_name)
    assert await stored(storage) == set(fox.pictures)


async def test_what_was_submitted_from_a_character_is_made_after_its_deletion(
    saved: Characters, ledger: Ledger, submit: Submit, reference: Reference
) -> None:
    fox = await saved.create("Fox", given([reference]), key_name="ann")
    prediction = await submit(key_name="ann")
    await saved.delete(fox.id, "ann")
    assert await ledger.storage.get(prediction.input) == reference.data


async def test_calls_at_once_make_one_character_and_a_sweep_removes_the_others_pictures(
    saved: Characters, ledger: Ledger, references: list[Reference], clock: Clock, tmp_path: Path
) -> None:
    calls = [saved.create("Fox", given(references), key_name="ann") for _ in range(5)]
    made: list[Character] = await asyncio.gather(*calls)
    assert len({character.id for character in made}) == 1
    assert sum(not character.known for character in made) == 1
    superfluous = len(await stored(ledger.storage)) - len(references)
    await ledger.storage.put(f"{INPUTS}/notes.txt", b"not ours")
    age(tmp_path / "data/files", clock)
    assert await sweep(ledger, keep_s=0) == Swept(0, 0)
    clock.now += GRACE_S + 1
    assert await sweep(ledger, keep_s=0) == Swept(0, superfluous)
    assert await stored(ledger.storage) == {*made[0].pictures, f"{INPUTS}/notes.txt"}
