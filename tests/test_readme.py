"""The documents are true: tables, links, pictures, the map, commands and host settings."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from benchmarks.readme import DOCUMENTS, filled
from castmate.defaults import Defaults
from castmate.engines.bundle import Bundle
from castmate.schema import GenerateRequest
from castmate.validation import describe_range
from castmate_mcp.settings import ServerSettings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = (*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "triton_models/README.md")
SECURITY = (ROOT / "docs/security.md").read_text()
HOSTS = README + (ROOT / "docs/mcp.md").read_text()

pages = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def parameter_table() -> str:
    """The table of parameters as the README must show it."""
    rows = ["| parameter | default | allowed | what it does |", "|---|---|---|---|"]
    toon = Bundle.open("toon").manifest.defaults
    for name, field in GenerateRequest.model_fields.items():
        default = "required" if field.is_required() else f"`{json.dumps(field.get_default())}`"
        if not field.is_required() and field.get_default() is None:
            default = "none"
        if name in Defaults.model_fields:
            default = f"the model's: `{getattr(toon, name):g}`"
        allowed = describe_range(GenerateRequest, name)
        meaning = str(field.description).replace(f": {allowed}.", ".")
        prose = f"{allowed} | {meaning}".replace("*", r"\*")  # else Markdown sees emphasis
        rows.append(f"| `{name}` | {default} | {prose} |")
    return "\n".join(rows)


def settings_table() -> str:
    """The table of settings as docs/settings.md must show it."""
    rows = ["| variable | default | what it does |", "|---|---|---|"]
    for name, field in ServerSettings.model_fields.items():
        default = field.default if field.default_factory is None else None
        value = ",".join(map(str, default)) if isinstance(default, tuple) else default
        shown = "" if value in (None, "") else f"`{value}`"
        meaning = str(field.description).replace("*", r"\*").replace("|", r"\|")
        rows.append(f"| `CASTMATE_{name.upper()}` | {shown} | {meaning} |")
    return "\n".join(rows)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", HOSTS, re.MULTILINE | re.DOTALL)


def test_the_parameter_table_is_the_schemas() -> None:
    shown = README.partition("<!-- parameters -->\n")[2].partition("\n<!-- /parameters -->")[0]
    assert shown == parameter_table(), f"put this into README.md:\n{parameter_table()}"


def test_the_page_of_settings_has_all_that_there_are() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    shown = page.partition("<!-- settings -->\n")[2].partition("\n<!-- /settings -->")[0]
    assert shown == settings_table(), f"put this into docs/settings.md:\n{settings_table()}"


@pages
def test_tables_of_results_are_those_of_the_committed_results(page: Path) -> None:
    text = page.read_text()
    assert filled(text) == text, "run: python -m benchmarks.readme"


@pages
def test_every_relative_link_picture_and_heading_exists(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"(https?:|mailto:)", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text()), target


def anchors(markdown: str) -> set[str]:
    """The names under which GitHub links a page's headings."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) < 220


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


def test_every_promise_of_security_names_a_test_that_exists() -> None:
    promises = re.findall(r"^\| .* \| (.*tests/.*|.*`test_.*) \|$", SECURITY, re.MULTILINE)
    assert len(promises) > 15
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for named in re.findall(r"`((?:tests/|test_)[^`]*)`", "".join(promises)):
        if named.startswith("tests/"):
            assert list(ROOT.glob(named)), named
        else:
            assert f"def {named}(" in sources, named


def test_every_module_that_a_reader_is_asked_to_run_can_be_run() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    modules = re.findall(r"python -m ([a-z_]+\.[a-z_.0-9]*[a-z_0-9])", text)
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
