"""The page beside the chat: what hosts read of it, and what people see of it in a browser."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID
from mcp.types import TextResourceContents

from benchmarks.server_process import castmate_serve
from castmate_mcp.agent.extensions.viewer import URI, page
from castmate_mcp.agent.server import GENERATE
from tests.mcp_server.conftest import Agent
from tests.mcp_server.running import REFERENCE

BIN = Path(sys.executable).parent
NODE = Path(__file__).parents[1] / "node"


@pytest.mark.anyio
async def test_the_page_is_listed_and_read_and_asks_for_no_address(agent: Agent) -> None:
    listed = {
        resource.uri: resource for resource in (await agent.client.list_resources()).resources
    }
    (read,) = (await agent.client.read_resource(URI)).contents
    assert isinstance(read, TextResourceContents)
    assert read.text == page()
    for one in (listed[URI], read):
        assert one.mime_type == APP_MIME_TYPE
        assert one.meta
        ui = one.meta["ui"]
        assert ui["csp"] == {"connectDomains": [], "resourceDomains": [], "frameDomains": []}
        assert ui["permissions"] == {"clipboardWrite": {}}
        assert ui["prefersBorder"] is True


@pytest.mark.anyio
async def test_the_tools_whose_results_it_shows_name_it(agent: Agent, era: str) -> None:
    tools = (await agent.client.list_tools()).tools
    naming = [tool.name for tool in tools if tool.meta == {"ui": {"resourceUri": URI}}]
    assert naming == [GENERATE, "draw_scenes", "get_job", "view_image", "list_library"]
    assert [tool.name for tool in tools if tool.meta] == naming
    if era == "auto":  # a handshake of the older era carries no extensions
        extensions = agent.client.server_capabilities.extensions
        assert extensions is not None
        assert EXTENSION_ID in extensions


def test_the_page_is_small_and_its_policy_names_its_own_script_and_style() -> None:
    html = page()
    assert len(html) < 48_000
    assert "://" not in html.replace("file:///", "").replace("image://", "")
    (policy,) = re.findall(r'Policy" content="([^"]+)"', html)
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="the browser of the npm package is built for Linux on x86-64",
)
def test_a_browser_shows_progress_pictures_and_the_library(tmp_path: Path) -> None:
    if not (NODE / "node_modules/puppeteer-core").exists():
        pytest.fail("`make mcp-checks` installs the browser; it needs the npm registry once")
    # One thread, so that a job lasts long enough to be watched on any machine.
    with castmate_serve(tmp_path / "server", CASTMATE_THREADS="1") as server:
        done = subprocess.run(
            [
                str(BIN / "node"),
                *("--test", "--test-reporter", "spec"),
                str(NODE / "viewer/viewer.test.mjs"),
            ],
            cwd=NODE,
            env={
                "PATH": f"{BIN}:/usr/bin:/bin",
                "HOME": str(tmp_path),
                "CASTMATE_URL": f"{server.url}/mcp",
                "CASTMATE_REFERENCE": str(REFERENCE),
                "CASTMATE_SHOTS": os.environ.get("CASTMATE_SHOTS", ""),
            },
            capture_output=True,
            text=True,
            timeout=380,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"pass 2\d\n", done.stdout), done.stdout
