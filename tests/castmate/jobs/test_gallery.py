"""Finished pictures are found by what is in the ledger, on both databases, and leave nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select, text

from castmate.images import Reference
from castmate.jobs.claims import Claims
from castmate.jobs.gallery import Gallery, Wanted
from castmate.jobs.ledger import Ledger
from castmate.jobs.outputs import Outputs
from castmate.jobs.predictions import StoredImage
from castmate.jobs.tables import search_terms
from castmate.schema import OutputFormat
from tests.castmate.jobs.claiming import RESULT, claim_one
from tests.castmate.jobs.conftest import Clock, submitter

pytestmark = pytest.mark.anyio

IMAGES = tuple(
    StoredImage(
        name=f"outputs/{number}.png",
        num_bytes=1,
        output_format=OutputFormat.PNG,
        width=512,
        height=512,
        seed=number,
    )
    for number in range(2)
)
PAGE = 2


async def drawn(ledger: Ledger, reference: Reference, prompt: str, **options: Any) -> str:
    """A prediction that is completed."""
    prediction = await submitter(ledger, reference)(prompt=prompt, **options)
    claims = Claims(ledger.database, ledger.limits)
    claim = await claim_one(claims)
    assert claim.id == prediction.id
    assert await claims.complete(claim, replace(RESULT, images=IMAGES))
    return prediction.id


async def found(ledger: Ledger, words: str, key_name: str = "local") -> list[tuple[str, int]]:
    gallery = Gallery(ledger.database)
    wanted = Wanted(key_name, words)
    return [(one.prediction.id, one.number) async for one in gallery.find(wanted, page=PAGE)]


async def count(ledger: Ledger) -> int:
    query = select(func.count()).select_from(search_terms)
    return await ledger.database.run(lambda tx: int(tx.connection.execute(query).scalar_one()))


async def test_pages_of_any_size_hold_every_picture_once(
    ledger: Ledger, reference: Reference, clock: Clock
) -> None:
    names = []
    for number in range(5):
        clock.now += 1
        names.append(await drawn(ledger, reference, f"waving {number}"))
    expected = [(name, number) for name in reversed(names) for number in (0, 1)]
    assert await found(ledger, "waving") == await found(ledger, "") == expected
    assert await found(ledger, "wav 3") == [(names[3], 0), (names[3], 1)]
    assert await found(ledger, "waving", "bob") == []


async def test_what_an_earlier_release_has_drawn_is_found_after_a_while(
    ledger: Ledger, reference: Reference
) -> None:
    name = await drawn(ledger, reference, "Waving on the \u00cele")
    for statement in ("delete from search_terms", "update predictions set findable = null"):
        await ledger.database.run(
            lambda tx, one=statement: tx.connection.execute(text(one)).rowcount  # type: ignore[misc]
        )
    assert await found(ledger, "waving") == []
    assert len(await found(ledger, "")) == 2
    await Outputs(ledger).rename(name, 0, "Cover")  # not in the index yet
    gallery = Gallery(ledger.database)
    assert await gallery.let_all_be_found() == 1
    assert await gallery.let_all_be_found() == 0
    assert await found(ledger, "\u00eele waving") == [(name, 0), (name, 1)]
    assert await found(ledger, "cover") == [(name, 0)]


async def test_what_is_removed_leaves_no_words_behind(ledger: Ledger, reference: Reference) -> None:
    kept = await drawn(ledger, reference, "waving")
    before = await count(ledger)
    name = await drawn(ledger, reference, "running in the rain", style="night-ink")
    await Outputs(ledger).rename(name, 1, "Cover")
    await Outputs(ledger).rename(name, 1, "Back")
    assert await count(ledger) > before
    assert await ledger.delete([name]) == 1
    assert await count(ledger) == before
    assert await found(ledger, "") == [(kept, 0), (kept, 1)]


async def test_the_longest_prompt_and_word_can_be_kept(
    ledger: Ledger, reference: Reference
) -> None:
    longest = "\U00020000" * 4096  # four bytes each, and no word ends before
    name = await drawn(ledger, reference, longest)
    assert await found(ledger, longest) == [(name, 0), (name, 1)]
    many = " ".join(f"{number:x}" for number in range(1000))
    name = await drawn(ledger, reference, many)
    assert await found(ledger, "0ff ff") == []
    assert (await found(ledger, "ff"))[0] == (name, 0)
