"""`castmate serve` as a process: stopped, killed, started again; nothing acknowledged is lost."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from benchmarks.server_process import CASTMATE, ServerProcess, castmate_serve, create_key, inherited
from tests.doubles import picture
from tests.mcp_server.running import INPUTS, MODEL

pytestmark = pytest.mark.slow

# Long enough to be stopped in, short enough to wait for: some seconds on a slow machine.
LONG = {"num_inference_steps": 25, "num_images": 4}


def caller(server: ServerProcess) -> httpx2.Client:
    return httpx2.Client(base_url=server.url, timeout=30, trust_env=False)


def upload(http: httpx2.Client) -> str:
    files = {"file": ("fox.png", picture((64, 64)), "image/png")}
    answer = http.post("/api/v3/media/upload/binary", files=files)
    return str(answer.json()["data"]["download_url"])


def submit(http: httpx2.Client, image: str, **changed: Any) -> str:
    answer = http.post(MODEL, json=INPUTS | {"image": image} | changed)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["id"])


def poll(http: httpx2.Client, name: str, until: str) -> Any:
    """The prediction once its status is `until`; clients poll just so."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        data = http.get(f"/api/v3/predictions/{name}/result").json()["data"]
        if data["status"] == until:
            return data
        assert data["status"] in ("created", "processing"), data
        time.sleep(0.05)
    raise AssertionError(f"{name} never became {until}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_ends_mid_generation_goes_on_at_the_next_start(
    tmp_path: Path, number: signal.Signals
) -> None:
    settings = {"CASTMATE_LEASE_S": "1", "CASTMATE_DRAIN_S": "0"}
    with castmate_serve(tmp_path / "data", **settings) as server, caller(server) as http:
        image = upload(http)
        names = [submit(http, image, seed=seed, **LONG) for seed in range(2)]
        poll(http, names[0], "processing")
        server.signal(number)
        code = server.wait()
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    with castmate_serve(tmp_path / "data", **settings) as server, caller(server) as http:
        for name in names:
            made = poll(http, name, "completed")
            assert len(made["outputs"]) == 4
            kept = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
            assert kept.days == 29, "a server keeps what its callers made for 30 days"


def test_what_is_being_made_when_it_is_stopped_is_finished_first(tmp_path: Path) -> None:
    settings = {"CASTMATE_DRAIN_S": "60"}
    with castmate_serve(tmp_path / "data", **settings) as server, caller(server) as http:
        name = submit(http, upload(http), **LONG)
        poll(http, name, "processing")
        assert server.stop() == 0
    assert read_states(tmp_path / "data") == {name: "completed"}


def test_who_waits_in_sync_mode_is_answered_when_the_server_is_stopped(tmp_path: Path) -> None:
    settings = {"CASTMATE_DRAIN_S": "0"}
    with castmate_serve(tmp_path / "data", **settings) as server, caller(server) as http:
        body = json.dumps(INPUTS | LONG | {"image": upload(http), "enable_sync_mode": True})
        command = ["curl", "--silent", "--max-time", "60", "--data", body, server.url + MODEL]
        waiting = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        ends = time.monotonic() + 30
        while not http.post("/api/v3/predictions", json={}).json()["data"]["items"]:
            assert time.monotonic() < ends
            time.sleep(0.05)
        server.stop()
        answer, _ = waiting.communicate(timeout=30)
        data = json.loads(answer)["data"]
        assert (data["status"], data["code"]) == ("processing", 5004)


def test_two_keys_are_isolated_in_the_real_process_and_its_log_tells_no_secret(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    ann, bob = create_key(data_dir, "ann"), create_key(data_dir, "bob")
    with castmate_serve(data_dir) as server, caller(server) as http:
        assert http.get("/api/v3/balance").status_code == 401
        http.headers["authorization"] = f"Bearer {ann}"
        name = submit(http, upload(http), prompt="a very private prompt")
        poll(http, name, "completed")
        http.headers["authorization"] = f"Bearer {bob}"
        assert http.get(f"/api/v3/predictions/{name}/result").status_code == 404
        assert http.post("/mcp", json={}).status_code >= 400
        run_castmate(data_dir, "keys", "revoke", "bob")
        assert http.get("/api/v3/balance").status_code == 401
        server.stop()
        lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
        assert all("request_id" in line for line in lines if line["event"] == "request")
        assert {line.get("key") for line in lines} >= {"ann", "bob"}
        assert [line["key"] for line in lines if line.get("route") == "/mcp"] == ["bob"]
        for secret in (ann, bob, "private", "signature", "fox.png"):
            assert secret not in server.log


def test_without_keys_it_does_not_listen_beyond_this_machine(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    failed = run_castmate(tmp_path / "data", "serve", "--host", "0.0.0.0", "--port", "0", code=2)
    assert "CASTMATE_HOST: 0.0.0.0 can be reached from other machines" in failed.stderr
    assert "castmate keys create" in failed.stderr


def test_a_port_that_is_taken_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        failed = run_castmate(tmp_path / "data", "serve", "--port", port, code=2)
    assert f"CASTMATE_PORT: 127.0.0.1:{port} cannot be used" in failed.stderr


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    settings = {"CASTMATE_DRAIN_S": "600"}
    with castmate_serve(tmp_path / "data", **settings) as server, caller(server) as http:
        name = submit(http, upload(http), **LONG)
        poll(http, name, "processing")
        server.signal(signal.SIGTERM)
        ends = time.monotonic() + 30
        while "draining" not in server.log:
            assert time.monotonic() < ends
            time.sleep(0.02)
        server.signal(signal.SIGTERM)
        assert server.wait() == -signal.SIGTERM


def run_castmate(data_dir: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [CASTMATE, *words],
        env=inherited() | {"CASTMATE_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done


def read_states(data_dir: Path) -> dict[str, str]:
    with sqlite3.connect(data_dir / "ledger.sqlite3") as connection:
        rows = connection.execute("select id, state from predictions").fetchall()
    connection.close()
    return dict(rows)
