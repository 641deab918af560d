"""Nothing that Castmate starts tells anybody about it: no look-ups, and no files but its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from castmate.engines.bundle import locate

OFFLINE = Path(__file__).parents[1] / "fakes/offline.py"
UNSHARE = ["unshare", "--net", "--mount", "--map-root-user"]
CASTMATE = Path(sys.executable).with_name("castmate")
COLLECTOR = "mobile.events.data.microsoft.com"

pytestmark = pytest.mark.slow


class Seen(NamedTuple):
    code: int | None
    hosts: list[str]
    files: list[str]
    printed: str


def watched(home: Path, *command: str | Path, watch_s: float) -> Seen:
    """Run a command where it can reach nothing, and see whom it asks for and what it leaves."""
    if subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=30, check=False).returncode:
        pytest.skip("this machine allows no network namespaces")
    # ONNX Runtime is silent in CI by itself.
    quiet = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME", "GITHUB_ACTIONS")
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    environment |= {"HOME": str(home), "CASTMATE_DATA_DIR": str(home / "castmate")}
    done = subprocess.run(
        [*UNSHARE, sys.executable, OFFLINE, "--for", str(watch_s), *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=watch_s + 60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    left = (path.relative_to(home) for path in home.rglob("*") if path.is_file())
    foreign = sorted(str(path) for path in left if path.parts[0] != "castmate")
    return Seen(seen["code"], seen["hosts"], foreign, seen["printed"])


def test_the_watch_sees_what_onnx_runtime_does_by_itself(tmp_path: Path) -> None:
    code = "import onnxruntime, time; onnxruntime.get_available_providers(); time.sleep(60)"
    seen = watched(tmp_path, sys.executable, "-c", code, watch_s=10)
    assert seen.hosts == [COLLECTOR]
    assert any("onnxruntime" in path for path in seen.files)


def test_drawing_a_picture_looks_up_no_host_and_leaves_no_file_elsewhere(tmp_path: Path) -> None:
    command = (
        *(CASTMATE, "generate", "--image", locate("toon") / "references/mira.png"),
        *("--prompt", "waving", "--size", "512*512", "--steps", "2"),
        *("--output", tmp_path / "castmate/mira.png"),
    )
    seen = watched(tmp_path, *command, watch_s=60)
    assert seen.code == 0, seen.printed
    assert (seen.hosts, seen.files) == ([], [])


def test_a_server_looks_up_no_host_and_leaves_no_file_elsewhere(tmp_path: Path) -> None:
    seen = watched(tmp_path, CASTMATE, "serve", "--port", "0", watch_s=10)
    assert "Serving at" in seen.printed
    assert (seen.hosts, seen.files) == ([], [])


@pytest.mark.parametrize("package", ["benchmarks", "castmate"])
def test_a_package_keeps_onnx_runtime_silent_before_it_can_be_imported(package: str) -> None:
    code = (
        f"import os, sys, {package};"
        "print('onnxruntime' in sys.modules, os.environ.get('ORT_DISABLE_TELEMETRY'))"
    )
    environment = {
        name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"
    }
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "1"]
