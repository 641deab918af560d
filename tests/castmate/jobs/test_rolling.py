"""A rolling update: servers of two releases share one ledger."""

from __future__ import annotations

import asyncio
import re

import pytest
from sqlalchemy import text

from castmate.jobs import migrations, tables
from castmate.jobs.claims import Claims
from castmate.jobs.database import Transaction
from castmate.jobs.ledger import Ledger
from castmate.jobs.migrations import MIGRATIONS, READABLE_FROM
from castmate.jobs.opening import open_database
from castmate.jobs.predictions import State
from tests.castmate.jobs.claiming import RESULT
from tests.castmate.jobs.conftest import Submit

pytestmark = pytest.mark.anyio

NEXT = (
    "alter table predictions add column mood text",
    "create table moods (prediction_id text primary key not null, mood text not null)",
)
ADDING = (
    r"create table ",
    r"create index ",
    r"alter table \w+ add column \w+ (?!.*\bnot null\b(?!.*\bdefault\b))",
)


def _newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this is the next release."""
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, NEXT))


def _undo(tx: Transaction) -> None:
    tx.connection.execute(text("alter table predictions drop column mood"))
    tx.connection.execute(text("drop table moods"))
    tx.connection.execute(text("update castmate_schema set number = :n"), {"n": len(MIGRATIONS)})


def test_since_the_oldest_release_that_may_share_a_ledger_migrations_only_add() -> None:
    for statements in MIGRATIONS[READABLE_FROM - 1 :]:
        plain = [" ".join(statement.split()) for statement in statements]
        new = {found[1] for words in plain if (found := re.match(r"create table (\w+)", words))}
        for words in plain:
            unique = re.match(r"create unique index \w+ on (\w+)", words)
            of_new = unique is not None and unique[1] in new
            assert of_new or any(re.match(adding, words) for adding in ADDING), words


async def test_an_older_server_goes_on_with_a_ledger_that_a_newer_one_has_opened(
    ledger: Ledger,
    claims: Claims,
    database_url: str,
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = await submit()
    with monkeypatch.context() as patched:
        _newer(patched)
        newer = await open_database(database_url)
    try:
        after = await submit(prompt="another")
        for claim in await claims.claim("older", 2):
            assert await claims.complete(claim, RESULT)
        for prediction in (before, after):
            assert (await ledger.get(prediction.id)).state is State.COMPLETED
        restarted = await open_database(database_url)
        await restarted.aclose()
        number = text("select number from castmate_schema")
        left = await newer.run(lambda tx: tx.connection.execute(number).scalar_one())
        assert left == len(MIGRATIONS) + 1, "an older server that starts changes nothing"
    finally:
        await newer.run(_undo)
        await newer.aclose()


async def test_ten_servers_that_start_at_one_instant_migrate_once(postgres_url: str) -> None:
    names = ", ".join([*tables.metadata.tables, "castmate_schema"])
    opened = [await open_database(postgres_url)]
    drop = text(f"drop table {names}")
    await opened[0].run(lambda tx: tx.connection.execute(drop).close())
    opened += await asyncio.gather(*(open_database(postgres_url) for _ in range(10)))
    try:
        count = text("select count(*), max(number) from castmate_schema")
        row = await opened[0].run(lambda tx: tx.connection.execute(count).one())
        assert tuple(row) == (1, len(MIGRATIONS))
        rows = text("select count(*) from queue")
        assert await opened[0].run(lambda tx: tx.connection.execute(rows).scalar_one()) == 1
    finally:
        for one in opened:
            await one.aclose()
