"""A server in its own process, for benchmarks to measure and tests to call."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

START_S: Final = 60.0
CASTMATE: Final = str(Path(sys.executable).with_name("castmate"))


class ServerProcess:
    """A server, started and listening.

    Attributes:
        url: Where, which is the first address that it prints.
    """

    def __init__(self, command: Sequence[str], folder: Path, **environment: str) -> None:
        """Start it and wait until it listens.

        Args:
            command: Prints an address once it listens.
            folder: Where it runs and its output is kept.
            environment: In addition to this process's, of which no `CASTMATE_*` is handed on.

        Raises:
            RuntimeError: It ended, or took too long; with what it printed.
        """
        self._log = folder / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=inherited() | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.url = self._address()
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def log(self) -> str:
        """Its output so far."""
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for it to exit; returns the exit code."""
        return self._process.wait(60)

    def stop(self) -> int:
        """Stop it gracefully; returns the exit code."""
        self._process.terminate()
        return self.wait()

    def kill(self) -> None:
        """Kill it; does nothing if it has exited."""
        self._process.kill()
        self.wait()

    def _address(self) -> str:
        ends = time.monotonic() + START_S
        while time.monotonic() < ends:
            ended = self._process.poll() is not None
            if found := re.search(r"http://[\d.]+:\d+", self.log):
                return found[0]
            if ended:
                break
            time.sleep(0.02)
        raise RuntimeError(f"The server does not listen. It printed:\n{self.log}")


@contextmanager
def running(command: Sequence[str], folder: Path, **environment: str) -> Iterator[ServerProcess]:
    """A server that is killed at the end of the block; see `ServerProcess`."""
    folder.mkdir(parents=True, exist_ok=True)
    server = ServerProcess(command, folder, **environment)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def castmate_serve(data_dir: Path, **settings: str) -> Iterator[ServerProcess]:
    """`castmate serve` on a free port, unless a `CASTMATE_PORT` is given."""
    given = {"CASTMATE_PORT": "0", "CASTMATE_DATA_DIR": str(data_dir)} | settings
    with running([CASTMATE, "serve"], data_dir, **given) as server:
        yield server


def create_key(data_dir: Path, name: str, *options: str) -> str:
    """The secret of a new API key of the servers with that data folder."""
    done = subprocess.run(
        [CASTMATE, "keys", "create", name, *options],
        env=inherited() | {"CASTMATE_DATA_DIR": str(data_dir)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=START_S,
    )
    return done.stdout.strip().splitlines()[-1]


def inherited() -> dict[str, str]:
    """This process's environment without Castmate's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CASTMATE_")}
