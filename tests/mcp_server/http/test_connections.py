"""Sockets that stay silent, or half open, cost the server neither its answers nor its log."""

from __future__ import annotations

import contextlib
import logging
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from benchmarks.server_process import CASTMATE, ServerProcess, running
from castmate_mcp.http.logs import Thinned
from tests.doubles import FakeClock
from tests.mcp_server.running import INPUTS, MODEL, REFERENCE

HEAD = b"GET /healthz HTTP/1.1\r\nhost: a\r\n"


@contextlib.contextmanager
def server(folder: Path, *, soft: int, hard: int) -> Iterator[ServerProcess]:
    """`castmate serve` with so many file handles, whatever this process may have."""
    limited = [
        "sh",
        "-c",
        f"ulimit -Sn {soft} && ulimit -Hn {hard} && exec {CASTMATE} serve",
    ]
    settings = {"CASTMATE_PORT": "0", "CASTMATE_DATA_DIR": str(folder)}
    with running(limited, folder, **settings) as process:
        yield process


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=20)


def healthy(url: str) -> bool:
    with httpx2.Client(base_url=url, timeout=20, trust_env=False) as http:
        return http.get("/healthz").status_code == 200


def is_over(connection: socket.socket, within_s: float) -> bool:
    while select.select([connection], [], [], within_s)[0]:
        try:
            if connection.recv(4096) == b"":
                return True
        except ConnectionResetError:
            return True
    return False


@pytest.mark.slow
def test_a_server_with_128_file_handles_answers_beside_150_silent_sockets(tmp_path: Path) -> None:
    with server(tmp_path, soft=128, hard=128) as process, contextlib.ExitStack() as silent:
        for number in range(150):
            connection = silent.enter_context(connect(process.url))
            if number % 2:
                connection.sendall(HEAD)
        assert healthy(process.url)
        with httpx2.Client(base_url=process.url, timeout=60, trust_env=False) as http:
            with REFERENCE.open("rb") as file:
                uploaded = http.post("/api/v3/media/upload/binary", files={"file": file})
            image = uploaded.json()["data"]["download_url"]
            inputs = INPUTS | {"image": image, "enable_sync_mode": True}
            drawn = http.post(MODEL, json=inputs).json()["data"]
            assert drawn["status"] == "completed"
            for number in range(30):
                silent.enter_context(connect(process.url))
                assert http.get("/healthz").status_code == 200, number
        assert len(process.log) < 50_000
        assert "Too many open files" not in process.log


@pytest.mark.slow
def test_connections_in_use_are_not_given_up_for_new_ones(tmp_path: Path) -> None:
    with server(tmp_path, soft=128, hard=128) as process, contextlib.ExitStack() as stack:
        body = b"POST /api/v3/media/upload/binary HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        body += b"content-type: multipart/form-data; boundary=x\r\ncontent-length: 9\r\n\r\n"
        used = [stack.enter_context(connect(process.url)) for _ in range(5)]
        for connection in used:
            connection.sendall(body)
        for _ in range(100):
            stack.enter_context(connect(process.url))
        assert healthy(process.url)
        for connection in used:
            connection.sendall(b"--x--\r\n\r\n")
            assert connection.recv(12).startswith(b"HTTP/1.1 4")


@pytest.mark.slow
def test_a_request_that_does_not_arrive_ends_its_connection(tmp_path: Path) -> None:
    with (
        server(tmp_path, soft=256, hard=256) as process,
        connect(process.url) as silent,
        connect(process.url) as slow,
        connect(process.url) as again,
    ):
        again.sendall(HEAD + b"\r\n")
        assert again.recv(4096).startswith(b"HTTP/1.1 200")
        again.sendall(HEAD)
        begin = time.monotonic()
        while time.monotonic() < begin + 30 and not is_over(slow, 1):
            with contextlib.suppress(OSError):
                slow.sendall(b"a: b\r\n" if time.monotonic() > begin + 1 else HEAD)
        assert 8 < time.monotonic() - begin < 20
        assert is_over(silent, 10)
        assert is_over(again, 10)
        assert healthy(process.url)


@pytest.mark.slow
def test_the_soft_limit_of_open_files_is_raised(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 512:
        pytest.skip("this machine allows fewer open files")
    with server(tmp_path, soft=128, hard=512) as process:
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        (limit,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
        assert limit.split()[3:5] == ["512", "512"]


def test_what_a_server_logs_again_and_again_is_written_a_few_times() -> None:
    code = (
        "import logging; from castmate_mcp.http.logs import set_up; set_up();"
        "[logging.getLogger('asyncio').error('out of %s', number) for number in range(10_000)]"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert 1 < len(done.stderr.splitlines()) < 20


@pytest.mark.anyio
async def test_lines_that_repeat_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    log = logging.getLogger("asyncio")
    caplog.handler.addFilter(thinned := Thinned(clock))
    try:
        for number in range(1000):
            log.error("socket.accept() out of system resource %s", number)
        log.error("something else")
        await clock.sleep(11)
        log.error("socket.accept() out of system resource %s", 1000)
        log.error("socket.accept() out of system resource %s", 1001)
    finally:
        caplog.handler.removeFilter(thinned)
    assert len(caplog.messages) == 8
    assert caplog.messages[5:] == [
        "something else",
        "socket.accept() out of system resource 1000 (995 more like it were left out)",
        "socket.accept() out of system resource 1001",
    ]
