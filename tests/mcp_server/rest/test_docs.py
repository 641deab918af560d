"""The shell commands of docs/rest.md work as they are printed."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from benchmarks.server_process import castmate_serve

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"<!-- curl -->\n```sh\n(.*?)```\n<!-- /curl -->", re.DOTALL)
(COMMANDS,) = BLOCK.findall((ROOT / "docs/rest.md").read_text())


@pytest.mark.slow
def test_the_printed_curl_commands_submit_and_query(tmp_path: Path) -> None:
    with castmate_serve(tmp_path / "data") as server:
        here = COMMANDS.replace("http://127.0.0.1:8787", server.url)
        here = here.replace("submitted.json", str(tmp_path / "submitted.json"))
        assert here.count(server.url) == 1
        shell = ["bash", "-euo", "pipefail", "-c", here]
        done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        found = (match.start() for match in re.finditer('{"code":200', done.stdout))
        answers = [json.JSONDecoder().raw_decode(done.stdout, start)[0] for start in found]
        submitted, queried = answers
        data = submitted["data"]
        assert queried["data"]["id"] == data["id"]
        ends = time.monotonic() + 90
        while data["status"] in ("created", "processing"):
            assert time.monotonic() < ends
            time.sleep(0.2)
            data = httpx2.get(data["urls"]["get"], trust_env=False).json()["data"]
        assert data["status"] == "completed", data
        assert httpx2.get(data["outputs"][0], trust_env=False).status_code == 200
