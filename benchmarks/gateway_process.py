"""`castmate serve` as a process, and its WaveSpeed API as callers use it."""

from __future__ import annotations

import base64
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.protocol import Unfit
from benchmarks.server_process import START_S, ServerProcess, castmate_serve, create_key
from castmate.schema import GenerateRequest

PICTURE_S = 120.0
SUBMIT = "/api/v3/wavespeed-ai/instant-character"


@dataclass(frozen=True)
class Gateway:
    """A running gateway.

    Attributes:
        url: Where it listens.
        pid: Its process number.
        key: An API key without a limit.
    """

    url: str
    pid: int
    key: str


@contextmanager
def gateway(folder: Path, settings: Mapping[str, str]) -> Iterator[Gateway]:
    """A gateway that is ready to draw, in its own folder, until the end of the block.

    Args:
        folder: Gets the folder of its ledger, pictures and log.
        settings: `CASTMATE_*` variables.

    Raises:
        Unfit: It does not start, with its last words.
    """
    data_dir = folder / "gateway"
    with ExitStack() as ends:
        try:
            key = create_key(data_dir, secrets.token_hex(8), "--per-minute", "0")
            server = ends.enter_context(castmate_serve(data_dir, **settings))
            _wait_until_ready(server)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            raise Unfit(f"the HTTP server does not start: {_last_line(str(error))}") from error
        yield Gateway(server.url, server.pid, key)


def _wait_until_ready(server: ServerProcess) -> None:
    """Wait until the model is loaded, which happens after the server starts to listen."""
    ends = time.monotonic() + START_S
    while httpx2.get(f"{server.url}/readyz", timeout=10).status_code != 200:
        if time.monotonic() > ends:
            raise RuntimeError(f"not ready after {START_S:g} s")
        time.sleep(0.05)


class RestClient:
    """Submits, waits and downloads, as WaveSpeed's own clients do in their synchronous mode."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx2.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=PICTURE_S
        )

    async def draw(self, request: GenerateRequest) -> bytes:
        """The bytes of one finished picture.

        Raises:
            Unfit: The gateway has no such route.
            RuntimeError: It failed; with what it said.
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
    """A PNG as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines() or ["no reason was given"]
    return lines[-1]
