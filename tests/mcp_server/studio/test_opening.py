"""`castmate studio`: the browser opens over a server that runs, or one that it starts."""

from __future__ import annotations

import shlex
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import httpx2
import pytest

from benchmarks.server_process import CASTMATE, ServerProcess, running
from castmate_mcp.opening import address, answers


def test_the_command_is_there() -> None:
    (entry,) = entry_points(group="castmate.commands", name="studio")
    assert callable(entry.load())


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8787"),
        ("0.0.0.0", "http://127.0.0.1:8787"),
        ("::", "http://127.0.0.1:8787"),
        ("::1", "http://[::1]:8787"),
        ("localhost", "http://localhost:8787"),
    ],
)
def test_a_server_is_looked_for_where_this_machine_reaches_it(host: str, url: str) -> None:
    assert address(host, 8787) == url


def test_nobody_answers_where_nothing_listens() -> None:
    assert not answers("http://127.0.0.1:9")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_it_starts_a_server_only_if_none_runs_and_opens_it(tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    # What `webbrowser` runs: it takes the address as the command's last word.
    write = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    browser = shlex.join([sys.executable, "-c", write, str(opened)]) + " %s"
    settings = {"CASTMATE_DATA_DIR": str(tmp_path / "data"), "BROWSER": browser}
    with running([CASTMATE, "studio"], tmp_path / "first", CASTMATE_PORT="0", **settings) as first:
        assert _written(opened) == f"{first.url}/studio"
        assert "<title>Castmate</title>" in httpx2.get(f"{first.url}/studio").text
        opened.unlink()
        port = first.url.rpartition(":")[2]
        folder = tmp_path / "second"
        folder.mkdir()
        second = ServerProcess([CASTMATE, "studio"], folder, CASTMATE_PORT=port, **settings)
        assert second.wait() == 0
        assert _written(opened) == f"{first.url}/studio"


def _written(path: Path) -> str:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")
