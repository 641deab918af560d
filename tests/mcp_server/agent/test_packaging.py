"""What directories and desktop hosts read about the server says what the server is."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from castmate import __version__
from castmate.settings import Settings
from tests.mcp_server.conftest import Agent

ROOT = Path(__file__).parents[3]
BUNDLE = ROOT / "packaging/mcpb"


def read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def settings_named(variables: list[str]) -> set[str]:
    return {name.removeprefix("CASTMATE_").lower() for name in variables}


def test_the_registry_entry_has_our_version_and_settings_that_exist() -> None:
    entry = read(ROOT / "server.json")
    (package,) = entry["packages"]
    assert {entry["version"], package["version"]} == {__version__}
    assert len(entry["description"]) <= 100
    words = [argument["value"] for argument in package["packageArguments"]]
    assert words == [
        command.name for command in entry_points(group="castmate.commands", name="mcp")
    ]
    named = [variable["name"] for variable in package["environmentVariables"]]
    assert settings_named(named) <= Settings.model_fields.keys()


def test_the_desktop_bundle_starts_our_version_with_settings_that_exist() -> None:
    manifest = read(BUNDLE / "manifest.json")
    project = tomllib.loads((BUNDLE / "pyproject.toml").read_text())["project"]
    assert {manifest["version"], project["version"]} == {__version__}
    assert project["dependencies"] == [f"castmate=={__version__}"]
    environment = manifest["server"]["mcp_config"]["env"]
    assert settings_named([*environment]) <= Settings.model_fields.keys()
    asked = {value.removeprefix("${user_config.").rstrip("}") for value in environment.values()}
    assert asked == manifest["user_config"].keys()
    assert (BUNDLE / manifest["server"]["entry_point"]).is_file()


@pytest.mark.anyio
async def test_the_desktop_bundle_lists_the_tools_that_there_are(agent: Agent) -> None:
    tools = (await agent.client.list_tools()).tools
    listed = read(BUNDLE / "manifest.json")["tools"]
    assert [(tool["name"], tool["description"]) for tool in listed] == [
        (tool.name, tool.title) for tool in tools
    ]
