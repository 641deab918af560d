"""The studio as people see it: in a real browser, over a real server that draws."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from PIL import ExifTags, Image

from benchmarks.server_process import castmate_serve
from tests.fakes.wavespeed import KEY, FakeWaveSpeed
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
    turned, hosted = _turned(tmp_path / "turned.jpg"), FakeWaveSpeed()
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(hosted.running()) as port,
        # One thread, so that a picture takes long enough to be watched on any machine.
        castmate_serve(tmp_path / "server", CASTMATE_THREADS="1") as server,
        castmate_serve(
            tmp_path / "paid",
            CASTMATE_CLIENTS="wavespeed",
            CASTMATE_WAVESPEED_API_KEY=KEY,
            CASTMATE_WAVESPEED_BASE_URL=f"http://127.0.0.1:{port}",
        ) as paid,
    ):
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
                "CASTMATE_PAID_URL": paid.url,
                "CASTMATE_REFERENCE": str(REFERENCE),
                "CASTMATE_TURNED": str(turned),
                "CASTMATE_DATA_DIR": str(tmp_path / "server"),
                "CASTMATE_SHOTS": os.environ.get("CASTMATE_SHOTS", ""),
            },
            capture_output=True,
            text=True,
            timeout=380,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"fail 0\n", done.stdout), done.stdout
    assert hosted.submissions == []


def _turned(path: Path) -> Path:
    """A picture 320 wide and 480 high, as phones write it: lying on its side, and saying so."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the first row is on the right
    with Image.open(REFERENCE) as picture:
        picture.convert("RGB").resize((480, 320)).save(path, exif=exif)
    return path
