"""The official checks: conformance, Inspector, linter of tools, schema of desktop bundles."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.server_process import castmate_serve, running
from castmate.engines.bundle import locate
from castmate_mcp.agent.server import GENERATE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
NODE = Path(__file__).parents[1] / "node/node_modules/.bin"
ENVIRONMENT = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": "/nonexistent", "NO_UPDATE_NOTIFIER": "1"}
REVISIONS = ("2025-11-25", "2026-07-28")
# Those that call no fixture, so the product itself takes them.
SCENARIOS = (
    "server-initialize",
    "server-session-lifecycle",
    "ping",
    "tools-list",
    "resources-list",
    "prompts-list",
    "completion-complete",
    "resources-subscribe",
    "sep-2164-resource-not-found",
    "dns-rebinding-protection",
    "caching",
    "http-header-validation",
    "server-sse-multiple-streams",
)

OPTIONAL = (
    "tasks-lifecycle",
    "tasks-capability-negotiation",
    "tasks-wire-fields",
    "tasks-request-state-removal",
    "tasks-mrtr-input",
    "tasks-request-headers",
    "tasks-dispatch-and-envelope",
    "tasks-status-notifications",
    "tasks-required-task-error",
    "tasks-mrtr-composition",
    "sep-2640-skills-directory",
    "sep-2640-skills-enumeration",
    "sep-2640-skills-manifest",
)

Results = dict[str, list[dict[str, Any]]]
"""The checks of each scenario, as they are recorded."""


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    if not (NODE / "conformance").exists():
        pytest.fail(
            "`make mcp-checks` installs the official checks; it needs the npm registry once"
        )


def run(*command: str | Path, folder: Path, timeout: float = 100) -> tuple[int, str]:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def conformance_build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("conformance")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "mcp_server")])
    module = "tests.mcp_server.agent.official_server"
    command = [sys.executable, "-m", module, "data"]
    with running(command, folder, PYTHONPATH=paths) as server:
        yield f"{server.url}/mcp"


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with castmate_serve(tmp_path_factory.mktemp("product")) as server:
        yield f"{server.url}/mcp"


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_scored_check_of_both_revisions_passes(
    conformance_build: str, revision: str, tmp_path: Path
) -> None:
    _, output = run(
        NODE / "conformance",
        *("server", "--url", conformance_build, "--requirements", revision, "-o", "out"),
        folder=tmp_path,
    )
    results = re.findall(r"^([✓✗]) ([\w-]+): (\d+) passed, (\d+) failed", output, re.MULTILINE)
    unscored = set(re.findall(r"^  [✓✗] ([\w-]+) \(extension\)", output, re.MULTILINE))
    failed = [name for _, name, _, failed in results if failed != "0" and name not in unscored]
    assert failed == [], output
    assert sum(int(passed) for _, name, passed, _ in results if name not in unscored) >= 84


@pytest.fixture(scope="module")
def conformance_results(
    conformance_build: str, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    return every_scenario(conformance_build, tmp_path_factory.mktemp("all"))


@pytest.fixture(scope="module")
def product_results(product: str, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return every_scenario(product, tmp_path_factory.mktemp("all"))


def every_scenario(url: str, folder: Path) -> Results:
    """What each scenario found, in one process: Node takes longer to start than one takes."""
    _, output = run(
        NODE / "conformance",
        *("server", "--url", url, "--suite", "all", "--timeout", "60000", "-o", "out"),
        folder=folder,
    )
    found: Results = {}
    for path in (folder / "out").glob("*/checks.json"):
        name = re.fullmatch(r"server-(.+)-\d{4}-\d\d-\d\dT[\w-]+", path.parent.name)
        assert name, path
        found[name[1]] = json.loads(path.read_text())
    assert found.keys() >= {*SCENARIOS, *OPTIONAL}, output
    return found


def failures(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [check for check in checks if check["status"] == "FAILURE"]


@pytest.mark.parametrize("scenario", OPTIONAL)
def test_tasks_and_skills_pass_theirs(conformance_results: Results, scenario: str) -> None:
    assert conformance_results[scenario], "it checks something"
    assert failures(conformance_results[scenario]) == []


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_product_itself_passes_what_needs_no_fixture(
    product_results: Results, scenario: str
) -> None:
    assert product_results[scenario], "it checks something"
    assert failures(product_results[scenario]) == []


@pytest.fixture
def studio(tmp_path: Path) -> Path:
    (tmp_path / "mira.png").write_bytes((locate("toon") / "references/mira.png").read_bytes())
    return tmp_path


def inspect(folder: Path, era: str, *arguments: str) -> Any:
    command = (BIN / "castmate", "mcp", "--data-dir", "data", "--image-root", folder)
    code, output = run(
        NODE / "mcp-inspector",
        "--cli",
        *command,
        *arguments,
        *("--protocol-era", era, "--format", "json", "-q"),
        folder=folder,
    )
    assert code == 0, output
    return json.loads(output)["result"]


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_the_inspector_finds_nothing_and_draws_from_a_png_on_disk(studio: Path, era: str) -> None:
    tools = inspect(studio, era, "--method", "tools/list", "--strict")["tools"]
    assert tools[0]["name"] == GENERATE
    arguments = {
        "prompt": "waving",
        "image": "mira.png",
        "size": "512*512",
        "num_inference_steps": 2,
    }
    out = inspect(
        studio,
        era,
        *("--method", "tools/call", "--tool-name", GENERATE),
        *("--tool-args-json", json.dumps(arguments)),
    )["structuredContent"]
    assert out["status"] == "completed"
    with Image.open(out["images"][0]["file_path"]) as drawn:
        assert (drawn.format, drawn.size) == ("PNG", (512, 512))


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_the_inspector_finds_the_page_of_every_tool_that_has_one(studio: Path, era: str) -> None:
    code, output = run(
        NODE / "mcp-inspector",
        *("--cli", BIN / "castmate", "mcp", "--data-dir", "data"),
        *("--method", "tools/list", "--app-info", "--protocol-era", era, "--format", "json", "-q"),
        folder=studio,
    )
    assert code == 0, output
    found = {line["toolName"]: line for line in map(json.loads, output.splitlines())}
    shown = {name: line for name, line in found.items() if line["hasApp"]}
    assert shown.keys() == {GENERATE, "draw_scenes", "get_job", "view_image", "list_library"}
    for line in shown.values():
        assert line["resourceUri"] == "ui://castmate/viewer.html"
        assert line["resourceMimeType"] == "text/html;profile=mcp-app"
        assert not any(line["csp"].values())  # no address, for anything


def test_the_linter_of_tool_definitions_has_no_errors_and_no_warnings(studio: Path) -> None:
    command = f"{BIN / 'castmate'} mcp --data-dir {studio / 'data'}"
    code, output = run(
        BIN / "tdqs", "lint", "--command", command, "--fail-on", "warning", folder=studio
    )
    assert (code, "0 errors, 0 warnings" in output) == (0, True), output


def test_the_manifest_of_the_desktop_bundle_has_the_official_schema(tmp_path: Path) -> None:
    manifest = ROOT / "packaging/mcpb/manifest.json"
    code, output = run(NODE / "mcpb", "validate", manifest, folder=tmp_path)
    assert code == 0, output
    broken = tmp_path / "manifest.json"
    broken.write_text(manifest.read_text().replace('"entry_point"', '"start"'))
    code, output = run(NODE / "mcpb", "validate", broken, folder=tmp_path)
    assert (code, "entry_point" in output) == (1, True), output
