"""The studio as people see it: in a real browser, over a real server that draws."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.server_process import castmate_serve
from tests.mcp_server.running import REFERENCE

BIN = Path(sys.executable).parent
NODE = Path(__file__).parents[1] / "node"


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="the browser of the npm package is built for Linux on x86-64",
)
def test_a_browser_draws_compares_and_tells_stories(tmp_path: Path) -> None:
    if not (NODE / "node_modules/puppeteer-core").exists():
        pytest.fail("`make mcp-checks` installs the browser; it needs the npm registry once")
    # One thread, so that a picture takes long enough to be watched on any machine.
    with castmate_serve(tmp_path / "server", CASTMATE_THREADS="1") as server:
        done = subprocess.run(
            [
                str(BIN / "node"),
                *("--test", "--test-reporter", "spec"),
                str(NODE / "studio/studio.test.mjs"),
            ],
            cwd=NODE,
            env={
                "PATH": f"{BIN}:/usr/bin:/bin",
                "HOME": str(tmp_path),
                "CASTMATE_URL": server.url,
                "CASTMATE_REFERENCE": str(REFERENCE),
                "CASTMATE_DATA_DIR": str(tmp_path / "server"),
                "CASTMATE_SHOTS": os.environ.get("CASTMATE_SHOTS", ""),
            },
            capture_output=True,
            text=True,
            timeout=380,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"fail 0\n", done.stdout), done.stdout
