"""What the command says about itself and its bundles, quickly."""

from __future__ import annotations

import json

import pytest

import castmate
from castmate.engines.bundle import shipped
from tests.castmate.command import castmate_, modules_of

pytestmark = pytest.mark.usefixtures("own_folder")


def test_the_version_is_printed() -> None:
    assert castmate_("--version").stdout == f"{castmate.__version__}\n"


def test_help_is_quick_because_it_loads_neither_numpy_nor_pillow_nor_an_engine_nor_mcp() -> None:
    loaded = modules_of("--help")
    assert "castmate_mcp.cli" in loaded
    assert not {"numpy", "PIL", "onnxruntime", "tokenizers", "httpx2", "mcp", "rich"} & loaded


def test_the_shipped_bundles_are_listed_and_whole() -> None:
    listed = json.loads(castmate_("bundle", "list", "--json").stdout)
    assert [bundle["name"] for bundle in listed] == shipped() == ["toon", "toon-8"]
    assert castmate_("bundle", "list").stdout.startswith("toon  ")
    checked = castmate_("bundle", "check", "toon")
    assert (checked.exit_code, "every file is whole" in checked.stdout) == (0, True)
    assert json.loads(castmate_("bundle", "check", "toon", "--json").stdout) == listed[0]


def test_an_unknown_bundle_is_told_with_those_that_exist() -> None:
    result = castmate_("bundle", "check", "nope")
    assert result.exit_code == 1
    assert "There is no bundle 'nope': neither a shipped one (toon, toon-8)" in result.stderr
