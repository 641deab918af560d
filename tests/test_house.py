"""What holds for the repository as a whole: packaging, import contracts, file sizes, documents."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import castmate

ROOT = Path(__file__).parents[1]
PACKAGES = ["castmate", "comfyui", "mcp_server/castmate_mcp", "export", "demo_model", "benchmarks"]
MAX_LINES = 400
CODE = {".css", ".js", ".mjs", ".py"}
MAX_WHEEL_BYTES = 30_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True, timeout=100)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_library_and_the_mcp_server_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    dist_info = f"castmate-{castmate.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"castmate", "castmate_mcp", dist_info}


def test_the_wheel_holds_every_file_of_the_shipped_bundle(wheel: Path) -> None:
    bundle = ROOT / "castmate/bundles/toon"
    files = {str(path.relative_to(ROOT)) for path in bundle.rglob("*") if path.is_file()}
    assert "castmate/bundles/toon/bundle.json" in files
    assert files <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_the_skills_and_the_page_of_the_mcp_server(wheel: Path) -> None:
    package = ROOT / "mcp_server"
    folders = [package / "castmate_mcp/agent/extensions" / name for name in ("skills", "viewer")]
    files = {str(p.relative_to(package)) for one in folders for p in one.rglob("*") if p.is_file()}
    assert "castmate_mcp/agent/extensions/viewer/index.html" in files
    assert files <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_brings_the_nodes_for_comfyui(wheel: Path) -> None:
    tracked = ["git", "ls-files", "comfyui"]
    listed = subprocess.run(tracked, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = {name.replace("comfyui/", "castmate/comfyui_nodes/", 1) for name in listed.split()}
    assert "castmate/comfyui_nodes/nodes/generate.py" in files
    assert files <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_is_typed_and_small(wheel: Path) -> None:
    assert "castmate/py.typed" in zipfile.ZipFile(wheel).namelist()
    assert wheel.stat().st_size < MAX_WHEEL_BYTES


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("castmate/schema.py", "import torch"),
        ("castmate/engines/base.py", "import castmate.pipeline"),
        ("castmate/clients/base.py", "import castmate.families.instantcharacter.graphs"),
        ("export/build.py", "import export.families.instantcharacter.family"),
        ("castmate/errors.py", "import export"),
        ("mcp_server/castmate_mcp/__init__.py", "import transformers"),
        ("mcp_server/castmate_mcp/__init__.py", "import demo_model"),
        ("mcp_server/castmate_mcp/rest/__init__.py", "import castmate_mcp.agent.server"),
        ("export/__init__.py", "import demo_model"),
        ("demo_model/__init__.py", "import tests"),
        ("castmate/comfyui.py", "import comfyui"),
        ("castmate/errors.py", "import comfy_api"),
        ("comfyui/__init__.py", "import castmate.schema"),
        ("comfyui/client/errors.py", "import torch"),
    ],
)
def test_a_forbidden_import_is_reported(tmp_path: Path, module: str, statement: str) -> None:
    for package in PACKAGES:
        for source in (ROOT / package).rglob("*.py"):
            copy = tmp_path / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{statement}\n")
    report = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{tmp_path / 'mcp_server'}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert report.returncode == 1
    refusals = ("is not allowed to import", "Illegal imports of protected package")
    assert any(refusal in report.stdout for refusal in refusals)


def test_the_dependencies_are_what_the_packages_import() -> None:
    modules = {
        name.partition(".")[0]
        for package in ["castmate", "mcp_server/castmate_mcp"]
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        for name in imported(node)
    }
    modules -= {*sys.stdlib_module_names, "castmate", "castmate_mcp"}
    modules -= {"pydantic_core", "mcp_types"}  # pinned by pydantic and by mcp
    owners = metadata.packages_distributions()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    optional = [line for extra in ("otel", "photos", "triton") for line in extras[extra]]
    declared = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"] + optional}
    # Several distributions may bring one module: OpenTelemetry's share theirs.
    brought = [{owner.lower().replace("_", "-") for owner in owners[name]} for name in modules]
    assert [names for names in brought if not names & declared] == []
    assert declared - set().union(*brought) == set()


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def test_the_changelog_tells_what_the_version_brings() -> None:
    released = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == "Unreleased"
    assert released[1] == castmate.__version__


def test_no_file_of_code_is_longer_than_400_lines() -> None:
    folders = [*PACKAGES, "packaging", "tests", "triton_models"]
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.*"))
    files = [path for path in found if path.suffix in CODE and "node_modules" not in path.parts]
    assert {path.suffix for path in files} == CODE
    lines = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in files}
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    command = ["make", "--no-print-directory", "help"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert [line.split()[0] for line in listing.splitlines()] == phony
    assert phony == re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE)


def test_tests_of_ctrl_c_pass_in_the_background_under_nohup() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-k",
        "ctrl_c",
        "tests/castmate/test_cli_generate.py",
    ]
    ignoring = ["sh", "-c", 'trap "" INT HUP && exec "$@"', "sh"]
    report = subprocess.run(
        [*ignoring, *command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "1 passed" in report.stdout, report.stdout


@pytest.mark.slow
def test_a_file_s_tests_share_a_worker_and_so_do_those_of_a_tritonserver() -> None:
    groups = [
        ("tests/castmate/test_errors.py",),
        ("tests/triton_models/test_config.py", "tests/triton_models/test_model.py"),
    ]
    options = ["--verbose", "--numprocesses", "2", "--dist", "loadfile"]
    command = [sys.executable, "-m", "pytest", *options, *(file for one in groups for file in one)]
    environment = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    report = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
    )
    ran = set(re.findall(r"^\[(gw\d)\] .* (tests/\S+\.py)", report.stdout, re.MULTILINE))
    assert {file for _, file in ran} == {file for one in groups for file in one}, report.stdout
    workers = [{worker for worker, file in ran if file in one} for one in groups]
    assert sorted(map(len, workers)) == [1, 1]
    assert workers[0] != workers[1]


def test_a_precision_is_named_only_where_contributing_says_to_add_it() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    _, _, section = text.partition("## Add a precision or a quantization scheme")
    listed = section.partition("\n## ")[0]
    naming = {
        path.relative_to(ROOT).as_posix()
        for package in ("export", "demo_model", "benchmarks")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"\b(Precision\.FP16|torch\.float16)\b", path.read_text())
    }
    assert naming >= {"export/precision.py", "export/quantization/none.py"}
    assert {name for name in naming if f"`{name}`" not in listed} == set()


@pytest.mark.parametrize("parameter", ["true_cfg_scale", "guidance_scale"])
def test_a_request_parameter_is_named_only_where_contributing_says_to_add_it(
    parameter: str,
) -> None:
    _, _, section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Add a request parameter")
    listed = section.partition("\n## ")[0]
    naming = {
        path.relative_to(ROOT).as_posix()
        for package in ("castmate", "mcp_server/castmate_mcp")
        for path in (ROOT / package).rglob("*.py")
        if re.search(rf"\b{parameter}\b", path.read_text())
    }
    doors = {name for name in naming if not name.startswith("castmate/families/")}
    assert "castmate/schema.py" in doors
    assert {name for name in doors if f"`{name}`" not in listed} == set()
