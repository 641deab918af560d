"""`castmate serve` as a process, and its WaveSpeed API as callers use it."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from benchmarks.protocol import Unfit
from castmate.schema import GenerateRequest
from castmate.triton.server import Ports

START_S, PICTURE_S, STOP_S = 60.0, 120.0, 20.0
SUBMIT = "/api/v3/wavespeed-ai/instant-character"


class Gateway:
    """A running gateway with its own API key and data folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Prepare; nothing starts yet.

        Args:
            folder: Where its ledger, pictures and log go.
            environment: `CASTMATE_*` variables.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.port = Ports.free().http
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "gateway.log"
        self._environment = {
            **os.environ,
            **environment,
            "CASTMATE_DATA_DIR": str(folder / "gateway"),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.key = ""

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        castmate, name = str(Path(sys.executable).with_name("castmate")), secrets.token_hex(8)
        made = self._castmate(castmate, "keys", "create", name, "--per-minute", "0")
        self.key = made.strip().splitlines()[-1]
        command = [castmate, "serve", "--port", str(self.port)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _castmate(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=START_S
        )
        if done.returncode:
            raise Unfit(f"this version has no HTTP server: {_last_line(done.stderr)}")
        return done.stdout

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        ends = time.monotonic() + START_S
        while time.monotonic() < ends:
            if self._process.poll() is not None:
                raise Unfit(f"the HTTP server ended: {_last_line(self.log.read_text())}")
            try:
                if httpx2.get(f"{self.url}/readyz", timeout=1).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.05)
        raise Unfit(f"the HTTP server was not ready after {START_S:g} s")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class RestClient:
    """Submits, waits and downloads as WaveSpeed's own clients do in synchronous mode."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx2.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=PICTURE_S
        )

    async def draw(self, request: GenerateRequest) -> bytes:
        """The bytes of one finished picture.

        Raises:
            Unfit: The gateway has no such route.
            RuntimeError: The prediction failed; contains its error.
        """
        body: dict[str, Any] = request.model_dump(mode="json", exclude_defaults=True)
        body |= {"image": data_uri(Path(request.image)), "enable_sync_mode": True}
        reply = await self._http.post(SUBMIT, json=body)
        if reply.status_code in (404, 405):
            raise Unfit("this version of the HTTP server has no REST API")
        data = reply.json().get("data") or {}
        while data.get("status") in ("created", "processing"):
            again = await self._http.get(data["urls"]["get"])
            data = again.json()["data"]
        if data.get("status") != "completed":
            raise RuntimeError(f"the gateway answered {reply.status_code}: {reply.text[:500]}")
        return (await self._http.get(data["outputs"][0])).content

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def data_uri(path: Path) -> str:
    """A PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines() or ["no reason was given"]
    return lines[-1]
