"""No traceback where a machine is unusual: no home, no folder, few characters, no locks."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from castmate.engines.bundle import Bundle, locate
from castmate.errors import BundleNotFound, SettingsError
from castmate.output import Output
from castmate.router import Router
from castmate.settings import Settings
from tests.castmate.command import castmate_
from tests.doubles import FlatClient, picture, routed

pytestmark = pytest.mark.usefixtures("own_folder")
LONG = "x" * 300


def command(*arguments: str, cwd: Path | None = None, **variables: str) -> Any:
    """The installed command in a process of its own, as `main` starts it."""
    code = "from castmate.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        timeout=60,
    )


def test_empty_variables_mean_unset_for_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    unset = Settings.load()
    for name in Settings.model_fields:
        monkeypatch.setenv(f"CASTMATE_{name.upper()}", "")
    assert Settings.load() == unset


def test_a_user_without_a_home_folder_is_asked_for_one_or_names_a_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name)
    assert castmate_("--version").exit_code == 0
    result = castmate_("doctor")
    assert (result.exit_code, "CASTMATE_DATA_DIR: this user has no home" in result.stderr) == (
        2,
        True,
    )
    assert Settings.load(data_dir=tmp_path).data_dir == tmp_path


def test_commands_run_in_a_working_folder_that_was_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "fox.png").write_bytes(picture())
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert Settings.load().image_roots == ()
    assert castmate_("--env-file", "x.env", "bundle", "list").exit_code == 0
    monkeypatch.setenv("CASTMATE_ENV_FILE", "")
    nowhere = castmate_("generate", "--image", str(tmp_path / "fox.png"), "--prompt", "waving")
    assert (nowhere.exit_code, "cannot be written (No such file" in nowhere.stderr) == (2, True)
    with pytest.raises(SettingsError, match=r"CASTMATE_DATA_DIR: .*is relative, and the working"):
        Settings.load(data_dir=Path("data"))


def test_names_that_no_file_can_have_are_not_there() -> None:
    with pytest.raises(BundleNotFound):
        locate(LONG)
    with pytest.raises(BundleNotFound):
        Bundle.open(f"~nobody-{LONG}/\0")
    assert not Output.parse(LONG).is_folder
    wrong = castmate_("generate", "--image", "x.png", "--prompt", "waving", "--output", LONG)
    assert wrong.exit_code == 2
    roots = castmate_("--env-file", LONG, "doctor")
    assert (roots.exit_code, "is not there" in roots.stderr) == (2, True)


@pytest.mark.parametrize("days", ["99999999", "9" * 30])
def test_dates_before_the_calendar_are_refused_with_what_is_allowed(days: str) -> None:
    result = castmate_("spend", "--days", days)
    assert (result.exit_code, "3660" in result.stderr) == (2, True)


@pytest.mark.slow
def test_a_terminal_with_few_characters_shows_the_others_as_escapes(own_folder: Path) -> None:
    (own_folder / "лиса.png").write_bytes(picture())
    arguments = ("--image", "лиса.png", "--prompt", "машет", "--output", "сцена.png")
    done = command("generate", *arguments, "--size=512*512", "--steps=1", PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(rb"\u0441\u0446\u0435\u043d\u0430.png  512*512")
    assert (own_folder / "сцена.png").exists()


def test_a_file_system_without_locks_is_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_locks(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    result = castmate_("spend")
    assert result.exit_code == 2
    assert "has no file locks" in result.stderr
    assert "a folder on a local disk, or use PostgreSQL" in result.stderr


def test_a_file_system_without_modes_holds_a_ledger_and_its_pictures(
    monkeypatch: pytest.MonkeyPatch, own_folder: Path
) -> None:
    def no_modes(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    (own_folder / "fox.png").write_bytes(picture())
    (own_folder / "scene.png").write_bytes(b"what was there before")
    monkeypatch.setattr(Router, "of", lambda settings: routed(FlatClient()))
    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, no_modes)
    result = castmate_("generate", "-i", "fox.png", "-p", "waving", "-o", "scene.png")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (own_folder / "scene.png").read_bytes().startswith(b"\x89PNG")
