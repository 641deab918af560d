"""`castmate serve triton` as a person runs it: started, watched, ended, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest

from castmate.triton.environment import installed
from castmate.triton.server import Installation, Ports, remove_leftovers

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]


class Serving:
    """The command in a process of its own."""

    def __init__(self, ports: Ports) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "castmate.cli", "serve", "triton"),
                f"--home={ROOT / '.venv-triton'}",
                f"--grpc-port={ports.grpc}",
                f"--http-port={ports.http}",
                f"--metrics-port={ports.metrics}",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def close(self) -> None:
        self.process.wait()
        self._reader.join(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def expect(self, text: str) -> None:
        line = self._lines.get(timeout=WAIT_S)
        assert text in line, line

    def children(self) -> list[int]:
        """The server and its stub."""
        found = descendants(self.process.pid)
        assert len(found) == 2, found
        return found

    def shared_memory(self) -> list[Path]:
        return list(Path("/dev/shm").glob(f"castmate{self.process.pid}_*"))


def descendants(pid: int) -> list[int]:
    """Children and their children; a stub is a child of the server."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(path.parent.name)] = int(fields[1])
    children = [child for child, parent in parents.items() if parent == pid]
    return children + [grand for child in children for grand in descendants(child)]


def wait_for_ends(handles: list[int]) -> None:
    for handle in handles:
        ready, _, _ = select.select([handle], [], [], WAIT_S)
        assert ready, "a process was left behind"
        os.close(handle)


@pytest.fixture
def serving() -> Iterator[Serving]:
    serving = Serving(Ports.free())
    try:
        yield serving
    finally:
        left = descendants(serving.process.pid)
        for pid in [serving.process.pid, *left]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        serving.close()


def test_it_starts_again_when_the_models_process_dies_and_ends_with_nothing_left(
    serving: Serving,
) -> None:
    serving.expect("Serving toon at 127.0.0.1:")
    server, stub = serving.children()
    os.kill(stub, signal.SIGKILL)
    serving.expect("Starting the server again: ")
    serving.expect("Serving again at 127.0.0.1:")
    handles = [os.pidfd_open(pid) for pid in serving.children()]
    serving.process.send_signal(signal.SIGTERM)
    serving.expect("Stopping.")
    assert serving.process.wait(WAIT_S) == 0
    wait_for_ends(handles)
    assert serving.shared_memory() == []
    assert not Path(f"/proc/{server}").exists()


def test_its_server_ends_with_it_even_when_it_is_killed(serving: Serving) -> None:
    serving.expect("Serving toon at 127.0.0.1:")
    handles = [os.pidfd_open(pid) for pid in serving.children()]
    serving.process.kill()
    serving.process.wait(WAIT_S)
    wait_for_ends(handles)
    remove_leftovers()  # as the next start does
    assert serving.shared_memory() == []


def test_the_tests_run_the_environment_that_the_command_would_prepare() -> None:
    found = installed(ROOT / ".venv-triton")
    assert isinstance(found, Installation)
    assert found.binary.is_file()
    assert "site-packages" not in str(found.backends)
