"""One tritonserver process: started, watched and ended, leaving nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from castmate.errors import SettingsError, Unavailable
from castmate.files import make_private_file, make_private_folder

EXIT_S: Final = 5  # after decoupled requests, the server may hang this long
_SHM: Final = Path("/dev/shm")
_SHM_NAME: Final = re.compile(r"castmate(\d+)_")

# Asks the kernel to end this process with its parent, then becomes the server. The server's own
# process group holds its stubs.
_LAUNCH: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Ports:
    """Where the server listens."""

    grpc: int = 8001
    http: int = 8000
    metrics: int = 8002
    host: str = "127.0.0.1"

    @classmethod
    def free(cls) -> Self:
        """Three unused ports, for tests and benchmarks."""
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        numbers = [each.getsockname()[1] for each in sockets]
        for each in sockets:
            each.close()
        return cls(*numbers)

    def check(self) -> None:
        """Check that the ports are free.

        Raises:
            SettingsError: One is taken; names it.
        """
        for name, port in (("grpc", self.grpc), ("http", self.http), ("metrics", self.metrics)):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self.host, port))
                except OSError as error:
                    raise SettingsError(
                        f"--{name}-port {port} on {self.host} cannot be used ({error.strerror}). "
                        "Stop what listens there, or choose another port."
                    ) from None


@dataclass(frozen=True)
class Installation:
    """A tritonserver on this machine.

    Attributes:
        binary: The server.
        backends: Folder of its backends, including the python stub.
        environment: Variables that it needs; `PATH` selects the models' Python.
    """

    binary: Path
    backends: Path
    environment: Mapping[str, str] = field(default_factory=dict)


class TritonServer:
    """A tritonserver; start it from the main thread, which it must not outlive.

    Its output goes to a file, which then has the reason of a failed start.
    """

    def __init__(
        self,
        installation: Installation,
        models: Path,
        ports: Ports,
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Describe a server without starting it.

        Args:
            installation: What to run.
            models: The model repository.
            ports: Where to listen.
            log: File for the output.
            environment: More variables, mostly `CASTMATE_*`.
            options: More options of tritonserver.
        """
        self.ports, self.log = ports, log
        self._installation, self._models = installation, models
        self._environment = {**os.environ, **installation.environment, **(environment or {})}
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: IO[bytes] | None = None
        self._shm = f"castmate{os.getpid()}_{secrets.token_hex(3)}_"

    @property
    def url(self) -> str:
        """The gRPC address."""
        return f"{self.ports.host}:{self.ports.grpc}"

    @property
    def pid(self) -> int:
        """The server's process id, which is also its group's."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def shared_memory(self) -> list[Path]:
        """The server's files in /dev/shm."""
        return sorted(_SHM.glob(f"{self._shm}*"))

    def is_running(self) -> bool:
        """Whether the process is alive, even if stopped or hung."""
        return self._process is not None and self._process.poll() is None

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end; returns whether it did in time."""
        assert self._process is not None, "not started"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
            return True
        return False

    def start(self, timeout_s: float = 60.0) -> None:
        """Start and wait until the models are loaded.

        Raises:
            SettingsError: A port is taken.
            Unavailable: It does not start; gives the reason from its log.
        """
        remove_leftovers()
        self.ports.check()
        command = [
            *(sys.executable, "-ISc", _LAUNCH, str(os.getpid()), self._installation.binary),
            f"--model-repository={self._models}",
            f"--backend-directory={self._installation.backends}",
            *(f"--{name}-address={self.ports.host}" for name in ("http", "grpc", "metrics")),
            f"--http-port={self.ports.http}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-port={self.ports.metrics}",
            f"--exit-timeout-secs={EXIT_S}",
            f"--backend-config=python,shm-region-prefix-name={self._shm}",
            # Clients ping a quiet connection every 2 s, which the default answers with GOAWAY.
            "--grpc-http2-min-recv-ping-interval-without-data=500",
            "--grpc-http2-max-ping-strikes=0",
            "--grpc-keepalive-permit-without-calls=1",
            *self._options,
        ]
        make_private_folder(self.log.parent)
        make_private_file(self.log)
        self._stream = self.log.open("wb")
        self._process = subprocess.Popen(
            list(map(str, command)),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait_until_ready(timeout_s)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Let running requests finish, then kill what is left of the group."""
        if self.is_running():
            assert self._process is not None
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs
                self._process.wait(EXIT_S + 5)
        self.kill()

    def kill(self) -> None:
        """Kill the server and its stubs at once, and remove its shared memory."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._stream is not None:
            self._stream.close()
        for path in self.shared_memory:
            path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_until_ready(self, timeout_s: float) -> None:
        url = f"http://{self.ports.host}:{self.ports.http}/v2/health/ready"
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if not self.is_running():
                raise Unavailable(f"tritonserver did not start. {self._reason()}")
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise Unavailable(
            f"tritonserver was not ready after {timeout_s:g} s; its log is {self.log}."
        )

    def _reason(self) -> str:
        """The reason of a failed start from the log: Castmate's own error if there is one."""
        text = self.log.read_text(errors="replace")
        ours = re.search(r"TritonModelException: (\w+: .*)", text)
        theirs = re.findall(r"^(?:E\d{4} .*\] |error: )(.*)$", text, re.MULTILINE)
        found = ours[1] if ours else " ".join(theirs[:1])
        return f"{found.strip()}\nIts log is {self.log}."


def remove_leftovers() -> None:
    """Remove the shared memory of servers whose parent was killed."""
    for path in _SHM.glob("castmate*"):
        if (match := _SHM_NAME.match(path.name)) and not Path(f"/proc/{match[1]}").exists():
            path.unlink(missing_ok=True)
