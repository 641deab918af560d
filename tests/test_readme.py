"""The README tells what is there: its table of parameters, links, pictures and host settings."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from benchmarks.readme import filled
from castmate.schema import GenerateRequest, describe_range
from castmate.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def parameter_table() -> str:
    """The table of parameters as the README must show it."""
    rows = ["| parameter | default | allowed | what it does |", "|---|---|---|---|"]
    for name, field in GenerateRequest.model_fields.items():
        default = "required" if field.is_required() else f"`{json.dumps(field.get_default())}`"
        allowed = describe_range(GenerateRequest, name)
        meaning = str(field.description).replace(f": {allowed}.", ".")
        prose = f"{allowed} | {meaning}".replace("*", r"\*")  # else Markdown sees emphasis
        rows.append(f"| `{name}` | {default} | {prose} |")
    return "\n".join(rows)


def settings_table() -> str:
    """The table of settings as docs/settings.md must show it."""
    rows = ["| variable | default | what it does |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default if field.default_factory is None else None
        value = ",".join(map(str, default)) if isinstance(default, tuple) else default
        shown = "" if value in (None, "") else f"`{value}`"
        told = str(field.description).replace("*", r"\*").replace("|", r"\|")
        rows.append(f"| `CASTMATE_{name.upper()}` | {shown} | {told} |")
    return "\n".join(rows)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_parameter_table_is_the_schemas() -> None:
    shown = README.partition("<!-- parameters -->\n")[2].partition("\n<!-- /parameters -->")[0]
    assert shown == parameter_table(), f"put this into README.md:\n{parameter_table()}"


def test_the_page_of_settings_has_all_that_there_are() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    shown = page.partition("<!-- settings -->\n")[2].partition("\n<!-- /settings -->")[0]
    assert shown == settings_table(), f"put this into docs/settings.md:\n{settings_table()}"


def test_its_tables_of_results_are_those_of_the_committed_results() -> None:
    assert filled(README) == README, "run: python -m benchmarks.readme"


def test_every_relative_link_and_picture_exists() -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", README) + re.findall(r'(?:src|href)="([^"]+)"', README)
    relative = [target for target in targets if not re.match(r"(https?:|mailto:|#)", target)]
    assert relative
    assert [target for target in relative if not (ROOT / target.partition("#")[0]).exists()] == []


def test_every_file_in_the_map_of_the_code_exists() -> None:
    tree = README.partition("<!-- map -->\n```\n")[2].partition("```")[0]
    folders: list[str] = []
    missing = []
    for line in tree.splitlines():
        entry = re.match(r"( *)(\S+)", line)
        assert entry, f"not an entry: {line!r}"
        depth, name = len(entry[1]) // 2, entry[2]
        folders[depth:] = [name]
        if not (ROOT / "".join(folders)).exists():
            missing.append("".join(folders))
    assert tree
    assert missing == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/predictions.md"])
def test_every_module_that_a_reader_is_told_to_run_can_be_run(document: str) -> None:
    modules = re.findall(
        r"python -m ([a-z_]+\.[a-z_.0-9]*[a-z_0-9])", (ROOT / document).read_text()
    )
    assert modules
    sources = {module: ROOT / f"{module.replace('.', '/')}.py" for module in modules}
    assert [
        module
        for module, path in sources.items()
        if not path.exists() or '__name__ == "__main__"' not in path.read_text()
    ] == []


@pytest.mark.parametrize("settings", blocks("json"))
def test_a_json_host_setting_starts_castmate_mcp(settings: str) -> None:
    (servers,) = json.loads(settings).values()
    assert servers["castmate"]["args"][0] == "mcp"


@pytest.mark.parametrize("settings", blocks("toml"))
def test_a_toml_host_setting_starts_castmate_mcp(settings: str) -> None:
    server = tomllib.loads(settings)["mcp_servers"]["castmate"]
    assert server["args"][0] == "mcp"
