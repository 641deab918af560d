"""API keys: made once, hashed, revoked at once, on both databases and from the command line."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from castmate.errors import InvalidRequest
from castmate.jobs.database import Database
from castmate.jobs.keys import LOCAL, KeyRing, Scope
from castmate.jobs.opening import open_database
from castmate_mcp.cli import keys as keys_app

runner = CliRunner()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    yield opened
    await opened.aclose()


@pytest.mark.anyio
async def test_a_key_is_found_by_its_secret_until_it_is_revoked(database: Database) -> None:
    ring = KeyRing(database)
    key, secret = await ring.create("ann", concurrency=2, max_usd=1.5, weight=4)
    assert await ring.find(secret) == key
    assert (key.name, key.concurrency, key.max_usd, key.weight) == ("ann", 2, 1.5, 4)
    assert key.scopes == {Scope.GENERATE, Scope.READ}
    assert await ring.find(secret[:-1]) is None
    assert await ring.find("") is None
    revoked = await ring.revoke("ann")
    assert revoked.revoked is not None
    assert await ring.find(secret) is None
    assert await ring.list() == [revoked]


@pytest.mark.anyio
async def test_the_secret_is_nowhere_in_the_database(database: Database, tmp_path: Path) -> None:
    _, secret = await KeyRing(database).create("ann")
    await database.aclose()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"ann" in written
    assert secret.encode() not in written
    assert secret.removeprefix("wsk_").encode() not in written


@pytest.mark.anyio
async def test_without_keys_everyone_is_local_and_after_the_last_revocation_nobody_is(
    database: Database,
) -> None:
    ring = KeyRing(database)
    assert await ring.admit(None) is LOCAL
    assert await ring.admit("anything") is LOCAL
    key, secret = await ring.create("ann")
    assert await ring.admit(None) is None
    assert await ring.admit("anything") is None
    assert await ring.admit(secret) == key
    await ring.revoke("ann")
    assert await ring.admit(secret) is None
    assert await ring.admit(None) is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("values", "parameter"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "local"}, "name"),
        ({"scopes": ()}, "scopes"),
        ({"per_minute": 0}, "per_minute"),
        ({"concurrency": -1}, "concurrency"),
        ({"max_usd": -0.1}, "max_usd"),
        ({"weight": 0}, "weight"),
    ],
)
async def test_a_value_that_is_not_allowed_is_named(
    database: Database, values: dict[str, Any], parameter: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await KeyRing(database).create(**{"name": "ann"} | values)
    assert [problem.parameter for problem in caught.value.problems] == [parameter]


@pytest.mark.anyio
async def test_a_name_is_given_once_also_after_its_revocation(database: Database) -> None:
    ring = KeyRing(database)
    await ring.create("ann")
    await ring.revoke("ann")
    with pytest.raises(InvalidRequest, match="there is, or was, a key 'ann'"):
        await ring.create("ann")
    with pytest.raises(InvalidRequest, match="there is no key 'bob'"):
        await ring.revoke("bob")


def test_the_commands_make_list_and_revoke(own_folder: Path) -> None:
    made = runner.invoke(keys_app, ["create", "ann", "--scope", "read", "--concurrency", "2"])
    assert made.exit_code == 0
    assert made.stdout.startswith("wsk_")
    assert len(made.stdout.split()) == 1
    assert "not shown again" in made.stderr
    listed = runner.invoke(keys_app, ["list"]).stdout
    assert listed == (
        "ann  read  600 requests a minute, 2 predictions at a time, no own budget, weight 1\n"
    )
    (known,) = json.loads(runner.invoke(keys_app, ["list", "--json"]).stdout)
    assert (known["name"], known["revoked"]) == ("ann", None)
    elsewhere = ["list", "--data-dir", str(own_folder / "other")]
    assert runner.invoke(keys_app, elsewhere).stdout == ""
    assert runner.invoke(keys_app, ["revoke", "ann"]).exit_code == 0
    assert runner.invoke(keys_app, ["list"]).stdout.startswith("ann  revoked")
    with sqlite3.connect(own_folder.parent / "data/castmate/ledger.sqlite3") as connection:
        (stored,) = connection.execute("select secret_hash from api_keys").fetchone()
    connection.close()
    assert made.stdout.strip() not in stored


def test_a_deployment_brings_a_key_in_a_file_and_may_do_so_again(own_folder: Path) -> None:
    (own_folder / "key").write_text("wsk_" + "a1" * 16 + "\n")
    command = ["create", "ann", "--secret-file", "key"]
    for _ in range(2):
        made = runner.invoke(keys_app, command)
        assert (made.exit_code, made.stdout) == (0, "")
        assert "The key 'ann' has the secret in key." in made.stderr
    missing = runner.invoke(keys_app, ["create", "bob", "--secret-file", "kye"])
    assert missing.exit_code == 2
    assert "`secret_file`: kye cannot be read: No such file or directory" in missing.stderr


def test_a_wrong_name_is_one_clear_error(own_folder: Path) -> None:
    result = runner.invoke(keys_app, ["revoke", "bob"])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: `name`: there is no key 'bob'")
    result = runner.invoke(keys_app, ["create", "ann", "--scope", "all"])
    assert result.exit_code == 2
    assert "generate, read, metrics" in result.stderr
