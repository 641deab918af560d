"""Text that one of the databases does not take is refused on both, and nothing else is harmed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import text

from castmate.errors import InvalidRequest
from castmate.images import Reference
from castmate.jobs.budget import Budget
from castmate.jobs.characters import Characters
from castmate.jobs.consents import Consents
from castmate.jobs.database import Transaction
from castmate.jobs.keys import KeyRing
from castmate.jobs.ledger import Ledger
from tests.castmate.jobs.conftest import Submit

pytestmark = pytest.mark.anyio

Doing = Callable[[Ledger, str], Awaitable[object]]
BAD = {"NUL": "a\0b", "half of a surrogate pair": "a\ud800b"}
WAYS: dict[str, Doing] = {
    "an id": lambda ledger, bad: ledger.get(bad),
    "an id to cancel": lambda ledger, bad: ledger.cancel(bad),
    "ids to delete": lambda ledger, bad: ledger.delete(["0" * 32, bad]),
    "the name of a key": lambda ledger, bad: ledger.list(key_name=bad),
    "a key to revoke": lambda ledger, bad: KeyRing(ledger.database).revoke(bad),
    "a budget": lambda ledger, bad: Budget(ledger.database).left(bad),
    "an agreement": lambda ledger, bad: Consents(ledger.database).give(bad),
    "a character": lambda ledger, bad: Characters(ledger.database, ledger.pictures).find(bad, "me"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("doing", WAYS.values(), ids=WAYS)
async def test_it_is_the_request_that_is_wrong(ledger: Ledger, doing: Doing, bad: str) -> None:
    with pytest.raises(InvalidRequest, match=r"`request`: has (a NUL|half of a)"):
        await doing(ledger, bad)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_submit_names_the_parameter(submit: Submit, ledger: Ledger, bad: str) -> None:
    for parameter in ("prompt", "negative_prompt", "idempotency_key"):
        with pytest.raises(InvalidRequest, match=f"`{parameter}`: "):
            await submit(**{parameter: bad})
    with pytest.raises(InvalidRequest, match="`request`: has"):
        await submit(note=bad)
    assert await ledger.list() == []


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_characters_name_is_refused(ledger: Ledger, reference: Reference, bad: str) -> None:
    async def pictures() -> AsyncIterator[Reference]:
        yield reference

    saved = Characters(ledger.database, ledger.pictures)
    with pytest.raises(InvalidRequest, match="`name`: has"):
        await saved.create(bad, pictures(), key_name="local")
    assert await saved.list() == []


async def test_other_text_in_any_script_is_kept(submit: Submit, ledger: Ledger) -> None:
    key = "\U0001f98a лиса \x01\x7f\ufffe"
    prediction = await submit(idempotency_key=key, prompt=f"x {key}")
    again = await submit(
        idempotency_key=key, prompt=f"x {key}", seed=prediction.request.seed, num_images=1
    )
    assert (again.id, again.joined) == (prediction.id, True)


async def test_a_value_that_postgres_refuses_is_no_outage_of_it(postgres_url: str) -> None:
    from castmate.jobs.opening import open_database

    database = await open_database(postgres_url)

    def too_large(tx: Transaction) -> None:
        tx.connection.execute(text("select 99999999999::int"))

    with pytest.raises(InvalidRequest, match=r"cannot be stored; allowed: .*out of range"):
        await database.run(too_large)
    await database.aclose()
