"""Castmate behind its doors: what Triton, the gateway and MCP add to the picture itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx2
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from benchmarks.gateway_process import RestClient, data_uri, gateway
from benchmarks.protocol import Draw, Drawn, Setup, Unfit
from castmate.clients.payments import Payment, PaymentState
from castmate.clients.triton.client import TritonClient
from castmate.errors import CastmateError
from castmate.images import Reference
from castmate.schema import GenerateRequest
from castmate.triton.environment import installed
from castmate.triton.server import Ports, TritonServer

ROOT = Path(__file__).parents[1]
TRITON_HOME = ROOT / ".venv-triton"
TOOL = "generate_character_image"
CALL_S = 120.0


def castmate_triton(setup: Setup, ends: ExitStack) -> Draw:
    """A tritonserver on this machine and the gRPC client."""
    server = ends.enter_context(triton_server(setup))
    client = TritonClient((server.url,))
    portal = ends.enter_context(anyio.from_thread.start_blocking_portal())
    ends.callback(portal.call, client.aclose)

    def draw(request: GenerateRequest) -> Drawn:
        path = Path(request.image)
        reference = Reference.from_bytes(path.read_bytes(), path.name)
        result = portal.call(client.generate, request, reference)
        return Drawn(result.timings_ms, computed_steps=result.computed_steps)

    return draw


def castmate_rest(setup: Setup, ends: ExitStack) -> Draw:
    """`castmate serve` and its WaveSpeed API, which add a ledger, a queue and a stored picture."""
    server = ends.enter_context(gateway(Path(setup.folder), environment(setup)))
    client = RestClient(server.url, server.key)
    portal = ends.enter_context(anyio.from_thread.start_blocking_portal())
    ends.callback(portal.call, client.aclose)

    def draw(request: GenerateRequest) -> Drawn:
        portal.call(client.draw, request)
        return Drawn({})

    return draw


def castmate_mcp_stdio(setup: Setup, ends: ExitStack) -> Draw:
    """`castmate mcp` as an MCP host starts it."""
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "castmate_mcp", "--data-dir", f"{setup.folder}/mcp"],
        env=environment(setup),
    )
    return _mcp(Client(parameters, read_timeout_seconds=CALL_S), ends)


def castmate_mcp_http(setup: Setup, ends: ExitStack) -> Draw:
    """MCP over HTTP, from `castmate serve`."""
    server = ends.enter_context(gateway(Path(setup.folder) / "http", environment(setup)))
    headers = {"Authorization": f"Bearer {server.key}"}
    if httpx2.post(f"{server.url}/mcp", headers=headers, json={}).status_code == 404:
        raise Unfit("this version serves no MCP over HTTP")
    http = httpx2.AsyncClient(headers=headers, timeout=CALL_S)
    client = Client(streamable_http_client(f"{server.url}/mcp", http_client=http))
    # A server elsewhere cannot read this machine's paths.
    return _mcp(client, ends, lambda path: data_uri(Path(path)))


def wavespeed(setup: Setup, ends: ExitStack) -> Draw:
    """The hosted model; every picture costs money."""
    from castmate.clients.wavespeed.client import WaveSpeedClient
    from castmate.settings import Settings

    settings = Settings.load()
    if settings.wavespeed_api_key is None:
        raise Unfit("CASTMATE_WAVESPEED_API_KEY is not set")
    if not setup.spend:
        raise Unfit("every picture costs money: --spend says how many may be drawn")
    client = WaveSpeedClient(settings)
    portal = ends.enter_context(anyio.from_thread.start_blocking_portal())
    ends.callback(portal.call, client.aclose)

    def draw(request: GenerateRequest) -> Drawn:
        path = Path(request.image)
        reference = Reference.from_bytes(path.read_bytes(), path.name)
        result = portal.call(client.generate, request, reference, None, UncappedPayments())
        return Drawn(result.timings_ms)

    return draw


class UncappedPayments:
    """Lets the hosted client pay; the number of requested pictures is the cap."""

    async def known(self) -> Sequence[Payment]:
        """There is no earlier attempt."""
        return ()

    async def reserve(self, index: int, client: str, price_usd: float) -> None:
        """Allow it."""

    async def move(self, index: int, state: PaymentState, remote_id: str | None = None) -> None:
        """Nothing is kept."""


def triton_server(setup: Setup) -> TritonServer:
    """Prepare a server; it does not start yet.

    Raises:
        Unfit: None is installed.
    """
    if (installation := installed(TRITON_HOME)) is None:
        raise Unfit("tritonserver is not installed: make triton")
    log = Path(setup.folder) / "tritonserver.log"
    return TritonServer(
        installation, ROOT / "triton_models", Ports.free(), log, environment=environment(setup)
    )


def environment(setup: Setup) -> dict[str, str]:
    """The environment of a server process."""
    return {
        "CASTMATE_BUNDLE": setup.bundle,
        "CASTMATE_THREADS": str(setup.threads),
        "CASTMATE_CLIENTS": "local",
        "CASTMATE_IMAGE_ROOTS": setup.folder,
    }


def _mcp(client: Client, ends: ExitStack, name: Callable[[str], str] = str) -> Draw:
    portal = ends.enter_context(anyio.from_thread.start_blocking_portal())
    session = ends.enter_context(portal.wrap_async_context_manager(client))

    async def call(arguments: dict[str, Any]) -> Any:
        async with asyncio.timeout(CALL_S):
            return await session.call_tool(TOOL, arguments)

    def draw(request: GenerateRequest) -> Drawn:
        arguments = request.model_dump(mode="json", exclude_defaults=True)
        result = portal.call(call, arguments | {"image": name(request.image)})
        job = result.structured_content or {}
        if result.is_error or job.get("status") != "completed":
            raise CastmateError(f"the MCP server made no picture: {result.content}")
        return Drawn({}, computed_steps=job.get("computed_steps"))

    return draw
