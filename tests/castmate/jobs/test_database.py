"""Both engines: migrations, newer ledgers, wrong URLs, locks that frozen processes hold."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

from castmate.errors import SettingsError, Unavailable
from castmate.jobs import sqlite
from castmate.jobs.database import Database, Durability, Transaction
from castmate.jobs.migrations import MIGRATIONS, READABLE_FROM
from castmate.jobs.opening import open_database
from castmate.jobs.tables import metadata

pytestmark = pytest.mark.anyio


def shape(tx: Transaction) -> dict[str, object]:
    """Names, types and keys of every table and index."""
    found = inspect(tx.connection)

    def kind(column: Any) -> str:  # one type, two names on SQLite
        return str(column["type"]).split()[0].replace("REAL", "DOUBLE")

    return {
        name: (
            [(each["name"], kind(each), each["nullable"]) for each in found.get_columns(name)],
            found.get_pk_constraint(name)["constrained_columns"],
            sorted((index["name"], index["unique"]) for index in found.get_indexes(name)),
        )
        for name in found.get_table_names()
    }


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
async def test_the_migrations_make_the_tables_that_the_code_describes(database: Database) -> None:
    def rebuild(tx: Transaction) -> dict[str, object]:
        metadata.drop_all(tx.connection)
        metadata.create_all(tx.connection)
        return shape(tx)

    migrated = await database.run(shape)
    try:
        described = await database.run(rebuild)
    finally:

        def restore(tx: Transaction) -> None:
            metadata.drop_all(tx.connection)
            for statement in itertools.chain(*MIGRATIONS):
                tx.connection.execute(text(statement))

        await database.run(restore)
    assert migrated == described
    assert migrated.keys() == {*metadata.tables, "castmate_schema"}


async def test_eight_processes_may_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new/folder/ledger.sqlite3'}"
    opened = await asyncio.gather(*(open_database(url) for _ in range(8)))
    for database in opened:
        await database.aclose()


async def test_a_ledger_of_a_newer_release_is_refused_where_it_cannot_be_used(
    database: Database, database_url: str
) -> None:
    def number(tx: Transaction, value: int, readable_from: int) -> None:
        statement = text("update castmate_schema set number = :n, readable_from = :r")
        tx.connection.execute(statement, {"n": value, "r": readable_from})

    await database.run(lambda tx: number(tx, 99, len(MIGRATIONS) + 1))
    try:
        with pytest.raises(SettingsError, match=r"version 99.*upgrade Castmate"):
            await open_database(database_url)
    finally:
        await database.run(lambda tx: number(tx, len(MIGRATIONS), READABLE_FROM))


@pytest.mark.parametrize(
    "url", ["ledger.sqlite3", "sqlite://", "sqlite:///:memory:", "mysql://host/name", ""]
)
async def test_a_wrong_url_is_told_with_what_is_allowed(url: str) -> None:
    with pytest.raises(SettingsError, match=r"CASTMATE_DATABASE_URL: .*allowed: sqlite:///"):
        await open_database(url)


async def test_a_password_in_a_wrong_url_is_not_told() -> None:
    with pytest.raises(SettingsError) as caught:
        await open_database("mysql://ann:hunter2@host/name")
    assert "hunter2" not in str(caught.value)


async def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, " * 100)
    with pytest.raises(SettingsError, match=r"notes\.txt cannot be opened as a ledger"):
        await open_database(f"sqlite:///{path}")
    assert path.read_text().startswith("not a database")


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"CASTMATE_DATABASE_URL: .*a folder you may write to"):
        await open_database(f"sqlite:///{tmp_path / 'file/ledger.sqlite3'}")


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await open_database("postgresql://nobody@127.0.0.1:1/nothing")


async def test_a_database_that_does_not_exist_is_told_by_its_name(postgres_url: str) -> None:
    with pytest.raises(Unavailable, match='"nothing" does not exist'):
        await open_database(postgres_url.replace("/postgres?", "/nothing?"))


async def test_a_lock_that_a_frozen_process_holds_ends_in_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await open_database(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    monkeypatch.setattr(sqlite, "ANSWER_S", 0.1)
    with (tmp_path / "ledger.sqlite3.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="a process that is stopped holds its lock"):
            await database.run(lambda tx: tx.now)
    monkeypatch.undo()
    assert await database.run(lambda tx: tx.now)
    await database.aclose()


async def test_a_database_that_cannot_be_written_fails_every_caller_and_recovers(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.sqlite3"
    database = await open_database(f"sqlite:///{path}")

    def work(tx: Transaction) -> None:
        tx.connection.execute(text("update queue set virtual_time = virtual_time + 1"))

    def limit_pages(tx: Transaction, pages: int) -> None:
        tx.connection.execute(text(f"pragma max_page_count = {pages}"))

    def fill(tx: Transaction) -> None:
        tx.connection.execute(
            text("insert into castmate_schema select 1 from (select 1 union all select 2)")
        )
        tx.connection.execute(text("create table large as select zeroblob(1000000) as data"))

    await database.run(lambda tx: limit_pages(tx, 1))  # SQLite takes what it already has
    answers = await asyncio.gather(
        *(database.run(step) for step in (work, fill, work)), return_exceptions=True
    )
    assert isinstance(answers[1], Exception)
    await database.run(lambda tx: limit_pages(tx, 100_000))
    await database.run(work)
    done = await database.run(
        lambda tx: tx.connection.execute(text("select virtual_time from queue")).scalar_one()
    )
    await database.aclose()
    assert done == 1 + answers.count(None)  # what was acknowledged, neither more nor less
    with sqlite3.connect(path) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.parametrize(("durability", "level"), [(Durability.PROCESS, 1), (Durability.POWER, 2)])
async def test_durability_chooses_what_is_flushed(
    tmp_path: Path, durability: Durability, level: int
) -> None:
    database = await open_database(f"sqlite:///{tmp_path / 'ledger.sqlite3'}", durability)
    found = await database.run(
        lambda tx: tx.connection.execute(text("pragma synchronous")).scalar_one()
    )
    await database.aclose()
    assert found == level


async def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    await database.aclose()
    await database.aclose()
    with pytest.raises(Unavailable, match="closed"):
        await database.run(lambda tx: tx.now)
