"""Settings are read from the user's own file or a named one, never from the working folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from castmate.errors import SettingsError
from castmate.settings import ENV_FILE, Settings
from tests.castmate.command import castmate_


@pytest.fixture
def own_file(own_folder: Path) -> Path:
    """Where the user's settings file belongs; it is not there yet."""
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "castmate/castmate.env"
    path.parent.mkdir(parents=True)
    return path


def test_a_project_cannot_redirect_the_key_or_allow_payments(own_folder: Path) -> None:
    (own_folder / ".env").write_text(
        "CASTMATE_WAVESPEED_BASE_URL=https://evil.example\nCASTMATE_CLIENTS=wavespeed\n"
        "CASTMATE_DATA_DIR=/tmp/evil\nCASTMATE_IMAGE_ROOTS=/\nCASTMATE_MAX_USD_PER_DAY=1000\n"
    )
    settings = Settings.load()
    assert settings.wavespeed_base_url == "https://api.wavespeed.ai"
    assert settings.clients is None
    assert settings.image_roots == (own_folder,)
    assert settings.max_usd_per_day == 5


def test_a_command_in_a_project_keeps_the_ledger_where_the_user_has_it(own_folder: Path) -> None:
    elsewhere = own_folder / "elsewhere"
    (own_folder / ".env").write_text(f"CASTMATE_DATA_DIR={elsewhere}\n")
    assert castmate_("spend").exit_code == 0
    assert not elsewhere.exists()
    assert (Path(os.environ["XDG_DATA_HOME"]) / "castmate/ledger.sqlite3").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe\0not text", b"CASTMATE_THREADS=many\n", None])
def test_a_broken_env_file_of_a_project_stops_nothing(
    own_folder: Path, content: bytes | None
) -> None:
    if content is None:
        (own_folder / ".env").mkdir()
    else:
        (own_folder / ".env").write_bytes(content)
    assert Settings.load().threads == 0
    result = castmate_("spend")
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_users_own_file_is_read_below_variables_and_options(
    own_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_file.write_text(
        "# mine\nCASTMATE_THREADS=3\nCASTMATE_BUNDLE=flux\nCASTMATE_SLOW_S=7\n", "utf-8-sig"
    )
    monkeypatch.setenv("CASTMATE_BUNDLE", "other")
    settings = Settings.load(slow_s=9)
    assert (settings.threads, settings.bundle, settings.slow_s) == (3, "other", 9)


def test_the_users_own_file_is_below_home_where_no_other_place_is_named(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_folder / ".config/castmate").mkdir(parents=True)
    (own_folder / ".config/castmate/castmate.env").write_text("CASTMATE_THREADS=3\n")
    monkeypatch.setenv("HOME", str(own_folder))
    for relative_or_unset in ("", "castmate"):
        monkeypatch.setenv("XDG_CONFIG_HOME", relative_or_unset)
        assert Settings.load().threads == 3


def test_a_named_file_is_read_instead_of_the_users_own(
    own_file: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_file.write_text("CASTMATE_THREADS=3\nCASTMATE_SLOW_S=7\n")
    (own_folder / "other.env").write_text("CASTMATE_THREADS=5\n")
    monkeypatch.setenv(ENV_FILE, "other.env")
    settings = Settings.load()
    assert (settings.threads, settings.slow_s) == (5, 120)


def test_the_command_takes_the_file_before_any_subcommand(own_folder: Path) -> None:
    (own_folder / "broken.env").write_text("CASTMATE_CLIENTS=nobody\n")
    wrong = castmate_("--env-file", "broken.env", "doctor")
    assert (wrong.exit_code, "no such client as nobody" in wrong.output) == (1, True)
    assert os.environ[ENV_FILE] == str(own_folder / "broken.env")


@pytest.mark.parametrize("command", [["doctor"], ["spend"]])
def test_a_named_file_that_is_not_there_is_an_error_that_says_so(
    own_folder: Path, command: list[str]
) -> None:
    result = castmate_("--env-file", "gone.env", *command)
    assert result.exit_code == 2
    assert f"{own_folder / 'gone.env'} (--env-file, CASTMATE_ENV_FILE) is not" in result.stderr


def test_a_file_that_is_no_text_is_an_error_that_names_it(own_file: Path) -> None:
    own_file.write_bytes(b"CASTMATE_BUNDLE=\xff\xfe\n")
    with pytest.raises(SettingsError, match=rf"{own_file} cannot be read: it is not UTF-8"):
        Settings.load()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that nobody reads")
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_FILE, "/proc/self/mem")
    with pytest.raises(SettingsError, match=r"/proc/self/mem cannot be read: Input/output error"):
        Settings.load()
