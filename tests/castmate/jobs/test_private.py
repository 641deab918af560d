"""What a server keeps is its owner's: modes, the secret behind addresses, and unusual folders."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from castmate.errors import SettingsError
from castmate.images import Reference
from castmate.jobs.opening import open_database
from castmate.jobs.predictions import State
from castmate.jobs.secret import SECRET, read_secret
from castmate.jobs.storage import Storage
from castmate.service import Castmate
from castmate.settings import Settings
from tests.castmate.command import castmate_
from tests.castmate.jobs.conftest import submitter
from tests.doubles import FlatClient, routed

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """For what is in `tmp_path`, whose parents other tests share."""
    before = os.umask(request.param)
    yield
    os.umask(before)


async def draw(data_dir: Path, reference: Reference, **settings: object) -> str:
    """Draw one picture with everything below `data_dir`, and return the prediction's id."""
    router = routed(FlatClient())
    async with Castmate.open(
        Settings.load(data_dir=data_dir, **settings), router=router
    ) as castmate:
        castmate.work()
        prediction = await submitter(castmate.ledger, reference)()
        found = await castmate.ledger.wait(prediction.id, 10)
        await castmate.storage.preview(found.images[0].name)
    assert found.state == State.COMPLETED
    return prediction.id


@pytest.mark.usefixtures("umask")
async def test_nobody_else_may_read_what_is_kept_whatever_the_umask(
    tmp_path: Path, reference: Reference
) -> None:
    await draw(tmp_path / "new/data", reference)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").rglob("*")} | {
        tmp_path / "new": stat.S_IMODE((tmp_path / "new").stat().st_mode)
    }
    assert len(modes) > 8
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}


async def test_a_folder_that_its_owner_shares_keeps_its_mode(
    tmp_path: Path, reference: Reference
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o750)
    await draw(shared, reference)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o750
    assert stat.S_IMODE((shared / "ledger.sqlite3").stat().st_mode) == 0o600
    assert stat.S_IMODE((shared / "files").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["what?", "#1", "100%", "a%20b", "ü ñ"])
async def test_a_data_folder_may_have_any_name(
    tmp_path: Path, reference: Reference, name: str
) -> None:
    prediction_id = await draw(tmp_path / name / "data", reference)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    async with Castmate.open(Settings.load(data_dir=tmp_path / name / "data")) as castmate:
        assert (await castmate.ledger.get(prediction_id)).state == State.COMPLETED


@pytest.mark.parametrize("name", ["what?", "#1", "100%", "a%20b"])
def test_the_command_keeps_all_in_a_data_folder_of_any_name(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CASTMATE_DATA_DIR", name)
    assert castmate_("spend").exit_code == 0
    assert [path.name for path in own_folder.iterdir()] == [name]
    assert (own_folder / name / "ledger.sqlite3").exists()


async def test_a_storage_url_may_quote_what_the_name_of_its_folder_holds(tmp_path: Path) -> None:
    storage = Storage.open(f"file://{tmp_path}/a%20b%25", tmp_path)
    await storage.put("inputs/one", b"1")
    assert (tmp_path / "a b%/inputs/one").read_bytes() == b"1"


async def test_a_database_url_with_an_unquoted_question_mark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"CASTMATE_DATABASE_URL: .*Write %3F"):
        await open_database(f"sqlite:///{tmp_path}/what?/ledger.sqlite3")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"short", bytes(31)])
def test_a_secret_that_can_be_guessed_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SECRET).write_bytes(content)
    with pytest.raises(SettingsError, match=rf"{SECRET} holds {len(content)} bytes.*Delete"):
        Storage.open(None, tmp_path)
    assert (tmp_path / SECRET).read_bytes() == content


def test_a_secret_is_drawn_once_and_kept(tmp_path: Path) -> None:
    Storage.open(None, tmp_path)
    drawn = read_secret(tmp_path)
    assert len(drawn) == 32
    Storage.open(None, tmp_path)
    assert read_secret(tmp_path) == drawn
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_disk_that_takes_half_of_a_secret_keeps_none_of_it(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        result = castmate_("spend")
    assert (result.exit_code, "No space left on device" in result.stderr) == (2, True)
    data_dir = Settings.load().data_dir
    assert list(data_dir.glob(f"*{SECRET}*")) == []
    assert castmate_("spend").exit_code == 0
    assert len(read_secret(data_dir)) == 32


def test_of_two_secrets_that_are_drawn_at_once_both_processes_use_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = b"t" * 32

    def draw_while_another_process_does(num_bytes: int) -> bytes:
        (tmp_path / SECRET).write_bytes(theirs)
        return b"m" * num_bytes

    monkeypatch.setattr(secrets, "token_bytes", draw_while_another_process_does)
    Storage.open(None, tmp_path)
    assert read_secret(tmp_path) == theirs


def test_a_file_system_without_hard_links_gets_its_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    Storage.open(None, tmp_path)
    assert len(read_secret(tmp_path)) == 32
