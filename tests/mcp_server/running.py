"""The server as its callers meet it, on a real socket, in this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx2
import uvicorn

from castmate.clients.base import Client
from castmate.service import Castmate
from castmate_mcp.agent.streamable import build_mcp_app
from castmate_mcp.app import build_app
from castmate_mcp.http.gateway import Gateway
from castmate_mcp.settings import ServerSettings
from tests.doubles import picture, routed

MODEL = "/api/v3/wavespeed-ai/instant-character"
REFERENCE = Path(__file__).parents[2] / "castmate/bundles/toon/references/mira.png"
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
            await self.gateway.castmate.ledger.wait(prediction_id)
            return await self.ask("GET", f"/api/v3/predictions/{prediction_id}/result", **options)

    async def key(self, name: str, **limits: Any) -> dict[str, str]:
        """The headers of a new key."""
        _, secret = await self.gateway.castmate.keys.create(name, **limits)
        return {"authorization": f"Bearer {secret}"}


@asynccontextmanager
async def serving(
    client: Client,
    data_dir: Path,
    app_options: Any = None,
    *,
    with_mcp: Any = False,
    **settings: Any,
) -> AsyncIterator[Api]:
    """Serve on a loopback port, with `client` to draw and a picture uploaded."""
    known = ServerSettings.load(data_dir=data_dir, **settings)
    async with Castmate.open(known, router=routed(client)) as castmate:
        castmate.work()
        mcp = build_mcp_app(castmate) if with_mcp else None
        app = build_app(castmate, mcp=mcp, **app_options or {})
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
