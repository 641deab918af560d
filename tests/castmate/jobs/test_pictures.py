"""A picture is stored and counted once, whatever refers to it, and goes with the last of that."""

from __future__ import annotations

import asyncio

import pytest

from castmate.errors import Overloaded, QuotaExceeded, Unavailable
from castmate.images import Reference
from castmate.jobs.characters import Characters
from castmate.jobs.database import Database
from castmate.jobs.ledger import Ledger
from castmate.jobs.pictures import Pictures
from castmate.jobs.queue import Limits
from castmate.jobs.retention import sweep
from castmate.jobs.storage import DAY_S, UPLOADS_KEPT_S, Storage
from tests.castmate.jobs.conftest import Clock, Submit, submitter
from tests.castmate.jobs.test_characters import given
from tests.doubles import picture

pytestmark = pytest.mark.anyio


async def files(storage: Storage) -> list[str]:
    return [item.name async for chunk in storage.list("") for item in chunk]


async def test_an_upload_a_character_and_predictions_share_a_file_until_the_last_is_gone(
    ledger: Ledger, submit: Submit, reference: Reference, storage: Storage, clock: Clock
) -> None:
    upload = await ledger.pictures.keep_upload(reference.data, "ann")
    saved = Characters(ledger.database, ledger.pictures)
    fox = await saved.create("Fox", given([reference] * 8), key_name="ann")
    made = [await submit(key_name="ann", seed=seed) for seed in range(3)]
    assert {*fox.pictures, *(one.input for one in made), upload} == {upload}
    assert await files(storage) == [upload]
    for prediction in made:
        await ledger.cancel(prediction.id)
    await ledger.delete([one.id for one in made])
    await saved.delete(fox.id)
    assert await files(storage) == [upload]
    clock.now += UPLOADS_KEPT_S + 1
    await sweep(ledger, keep_s=DAY_S)
    assert await files(storage) == []


async def test_deleting_predictions_removes_what_nothing_else_needs(
    ledger: Ledger, submit: Submit, storage: Storage
) -> None:
    first, second = [await submit(key_name="ann", seed=seed) for seed in range(2)]
    for prediction in (first, second):
        await ledger.cancel(prediction.id)
    await ledger.delete([first.id])
    assert await files(storage) == [second.input]
    await ledger.delete([second.id])
    assert await files(storage) == []


async def test_submits_at_once_leave_one_file_and_refused_ones_none(
    database: Database, storage: Storage, reference: Reference
) -> None:
    submit = submitter(Ledger(database, storage, Limits(queue_limit=3)), reference)
    done = await asyncio.gather(*(submit() for _ in range(8)), return_exceptions=True)
    (name,) = {one.input for one in done if not isinstance(one, BaseException)}
    assert sum(isinstance(one, Overloaded) for one in done) == 5
    assert await files(storage) == [name]


async def test_keys_share_no_file(ledger: Ledger, submit: Submit, storage: Storage) -> None:
    inputs = [(await submit(key_name=name)).input for name in ("ann", "bob")]
    assert sorted(inputs) == sorted(await files(storage))
    assert len(set(inputs)) == 2


async def test_a_key_keeps_its_quota_and_what_it_deletes_is_free_again(
    database: Database, storage: Storage, clock: Clock
) -> None:
    data = [picture(colour=colour) for colour in ("red", "blue")]
    limits = Limits(stored_bytes_per_key=max(map(len, data)))
    ledger = Ledger(database, storage, limits, clock)
    red, blue = [Reference.from_bytes(one, "it") for one in data]
    prediction = await submitter(ledger, red)(key_name="ann")
    await submitter(ledger, red)(key_name="ann")
    for call in (
        submitter(ledger, blue)(key_name="ann"),
        ledger.pictures.keep_upload(blue.data, "ann"),
        ledger.pictures.keep_upload_as("uploads/2027-01-15/a.png", red.data, "ann"),
        Characters(database, ledger.pictures).create("Fox", given([red, blue]), key_name="ann"),
    ):
        with pytest.raises(QuotaExceeded, match=r"Key 'ann' keeps .* CASTMATE_STORED_MB_PER_KEY"):
            await call
    assert await files(storage) == [prediction.input]
    await submitter(ledger, blue)(key_name="bob")
    for _ in range(2):
        await submitter(ledger, blue)(key_name="local")
    made = await ledger.list(key_name="ann")
    for one in made:
        await ledger.cancel(one.id)
    await ledger.delete([one.id for one in made])
    await submitter(ledger, blue)(key_name="ann")


async def test_uploads_at_once_stay_within_the_quota(
    database: Database, storage: Storage, clock: Clock
) -> None:
    data = [picture(colour=f"#{10 * number:02x}0000") for number in range(8)]
    pictures = Pictures(database, storage, clock, max_bytes=3 * max(map(len, data)))
    calls = [
        pictures.keep_upload(one, "ann")
        if number % 2
        else pictures.keep_upload_as(f"uploads/2027-01-15/{number}.png", one, "ann")
        for number, one in enumerate(data)
    ]
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(one, QuotaExceeded) for one in done) == 5
    assert len(await files(storage)) == 3


async def test_a_picture_that_is_removed_on_the_way_fails_the_call_and_not_its_prediction(
    ledger: Ledger, submit: Submit, reference: Reference
) -> None:
    prediction = await submit(key_name="ann")
    await ledger.cancel(prediction.id)
    async with ledger.pictures.bringing(reference.data, reference.sha256, "ann") as brought:
        await ledger.delete([prediction.id])
        with pytest.raises(Unavailable, match="deleted at this very moment"):
            await ledger.database.run(lambda tx: ledger.pictures.take(tx, brought))
    again = await submit(key_name="ann")
    assert again.input != prediction.input
    assert await ledger.storage.get(again.input) == reference.data
