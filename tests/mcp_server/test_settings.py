"""Settings of the servers: read by them alone, beside those of everyone."""

from __future__ import annotations

from pathlib import Path

import pytest

from castmate.errors import SettingsError
from castmate.settings import Settings
from castmate_mcp.settings import ServerSettings

pytestmark = pytest.mark.usefixtures("own_folder")


def test_empty_variables_mean_unset_for_every_setting_of_a_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unset = ServerSettings.load()
    for name in ServerSettings.model_fields:
        monkeypatch.setenv(f"CASTMATE_{name.upper()}", "")
    assert ServerSettings.load() == unset


def test_the_home_folder_may_be_abbreviated_in_every_path(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(own_folder))
    fields = ServerSettings.model_fields.items()
    names = [name for name, field in fields if "Path" in str(field.annotation)]
    for name in names:
        monkeypatch.setenv(f"CASTMATE_{name.upper()}", "~/x")
    settings = ServerSettings.load()
    assert len(names) >= 2
    for name in names:
        assert getattr(settings, name) in (own_folder / "x", (own_folder / "x",)), name


def test_a_wrong_port_stops_a_server_and_not_a_command_that_opens_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CASTMATE_PORT", "many")
    with pytest.raises(SettingsError, match="CASTMATE_PORT: "):
        ServerSettings.load()
    assert Settings.load().bundle == "toon"
