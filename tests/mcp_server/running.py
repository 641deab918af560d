"""The server as its callers meet it: on a real socket, in this process or in its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx2
import uvicorn

from castmate.clients.base import Client
from castmate.settings import Settings
from castmate_mcp.app import build_app
from castmate_mcp.http.gateway import Gateway
from castmate_mcp.service import Service
from tests.doubles import picture

MODEL = "/api/v3/wavespeed-ai/instant-character"
REFERENCE = Path(__file__).parents[2] / "castmate/bundles/toon/references/mira.png"
READY_S = 60.0
INPUTS = {"prompt": "waving", "size": "512*512", "seed": 7, "num_inference_steps": 2}


@dataclass
class Api:
    """A server in this process, and a caller.

    Attributes:
        http: Calls it; has no key.
        url: Where it is.
        gateway: Its inside.
        image: The address of a picture that was uploaded.
    """

    http: httpx2.AsyncClient
    url: str
    gateway: Gateway
    image: str = ""

    def inputs(self, **changed: Any) -> dict[str, Any]:
        """A quick valid generation; what is named is changed."""
        return INPUTS | {"image": self.image} | changed

    async def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """The JSON of an answer with the status that is expected."""
        answer = await self.http.request(method, path, **options)
        assert answer.status_code == status, answer.text
        body = answer.json()
        assert body["code"] == status
        if status == 200:
            assert "error" not in body
            return body["data"]
        assert body["message"] == body["error"] != ""
        return body

    async def submit(self, **changed: Any) -> Any:
        """The prediction of a quick valid generation."""
        return await self.ask("POST", MODEL, json=self.inputs(**changed))

    async def final(self, prediction_id: str, **options: Any) -> Any:
        """A prediction once it is final, as a caller polls it."""
        async with asyncio.timeout(30):
            await self.gateway.service.jobs.ledger.wait(prediction_id)
            return await self.ask("GET", f"/api/v3/predictions/{prediction_id}/result", **options)

    async def key(self, name: str, **limits: Any) -> dict[str, str]:
        """The headers of a new key."""
        _, secret = await self.gateway.keys.create(name, **limits)
        return {"authorization": f"Bearer {secret}"}


@asynccontextmanager
async def serving(
    client: Client, data_dir: Path, app_options: Any = None, **settings: Any
) -> AsyncIterator[Api]:
    """Serve on a loopback port, with `client` to draw and a picture uploaded."""
    known = Settings.load(data_dir=data_dir, **settings)
    async with Service.open(known, opener=lambda: client) as service:
        app = build_app(service, **app_options or {})
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server._serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        gateway = cast(Gateway, app.state.gateway)
        try:
            async with httpx2.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
                api = Api(http, url, gateway)
                files = {"file": ("fox.png", picture((64, 64)), "image/png")}
                uploaded = await api.ask("POST", "/api/v3/media/upload/binary", files=files)
                api.image = uploaded["download_url"]
                yield api
        finally:
            gateway.draining.set()
            server.should_exit = True
            async with asyncio.timeout(20):
                await running
            listener.close()


class Process:
    """`castmate serve` in a process of its own.

    Attributes:
        url: Where it is, once it has started.
    """

    def __init__(self, data_dir: Path, **environment: str) -> None:
        """Start it and wait until it answers."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("CASTMATE_")}
        command = [sys.executable, "-m", "castmate.cli", "serve"]
        options = ["--port", "0", "--data-dir", str(data_dir)]
        self._process = subprocess.Popen(
            [*command, *options],
            env=inherited | environment,
            cwd=data_dir,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []
        self._serving = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._serving.wait(READY_S):
            self.kill()
            raise AssertionError(f"it does not serve:\n{self.log}")
        self.url = re.findall(r"Serving at (http://\S+)\. ", self.log)[0]

    @property
    def log(self) -> str:
        """Its stderr until now."""
        return "".join(self._lines)

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; gives the exit code."""
        code = self._process.wait(60)
        self._reader.join(10)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self.wait()

    def _read(self) -> None:
        assert self._process.stderr
        with contextlib.closing(self._process.stderr) as stderr:
            for line in cast(io.TextIOWrapper, stderr):
                self._lines.append(line)
                if "Serving at" in line:
                    self._serving.set()


@contextmanager
def process(data_dir: Path, **environment: str) -> Iterator[Process]:
    """A server process that ends with the block."""
    data_dir.mkdir(parents=True, exist_ok=True)
    started = Process(data_dir, **environment)
    try:
        yield started
    finally:
        started.kill()
