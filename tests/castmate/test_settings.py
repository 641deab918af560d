"""Settings come from the environment, and a wrong one is called by its variable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from castmate.errors import SettingsError
from castmate.settings import Settings


def test_without_any_variable_the_toon_bundle_and_the_current_folder_are_used(
    own_folder: Path,
) -> None:
    settings = Settings.load()
    assert settings.bundle == "toon"
    assert settings.image_roots == (own_folder,)
    assert settings.data_dir == Path(os.environ["XDG_DATA_HOME"]) / "castmate"


def test_variables_are_read_and_a_flag_wins_over_them(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTMATE_BUNDLE", "flux")
    monkeypatch.setenv("CASTMATE_THREADS", "3")
    settings = Settings.load(bundle="toon", threads=None)
    assert (settings.bundle, settings.threads) == ("toon", 3)


def test_image_roots_are_a_list_like_path(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTMATE_IMAGE_ROOTS", f"/pictures{os.pathsep}{os.pathsep}/more")
    assert Settings.load().image_roots == (Path("/pictures"), Path("/more"))


def test_a_server_that_starts_in_the_root_folder_opens_no_folder_by_itself(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert Settings.load().image_roots == ()


def test_a_wrong_value_is_told_with_its_variable(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTMATE_THREADS", "many")
    with pytest.raises(SettingsError, match=r"CASTMATE_THREADS: .*valid integer.*'many'"):
        Settings.load()
