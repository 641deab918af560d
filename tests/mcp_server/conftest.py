"""An agent, connected in memory to a server over a real ledger, in both eras of the protocol."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest
from mcp.client.client import Client
from mcp.types import CallToolResult, TextContent, Tool
from PIL import Image

from castmate.clients import base
from castmate.service import Castmate
from castmate_mcp.agent.server import GENERATE, build_server
from castmate_mcp.settings import ServerSettings
from tests.doubles import FlatClient, picture, routed
from tests.mcp_server import signatures

signatures.read_once()

SCENE = {"prompt": "waving", "image": "fox.png", "size": "512*640", "seed": 7}


class Caller:
    """One connected agent, wherever its server is."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, tool: str = GENERATE, /, **arguments: Any) -> CallToolResult:
        scene = SCENE if tool == GENERATE else {}
        return await self.client.call_tool(tool, scene | arguments)

    async def succeed(self, tool: str = GENERATE, /, **arguments: Any) -> dict[str, Any]:
        result = await self.call(tool, **arguments)
        assert not result.is_error, result.content
        assert isinstance(result.structured_content, dict)
        return result.structured_content

    async def draw(self, **arguments: Any) -> dict[str, Any]:
        """The first picture of a call."""
        image: dict[str, Any] = (await self.succeed(**arguments))["images"][0]
        return image

    async def fail(self, tool: str = GENERATE, /, **arguments: Any) -> str:
        result = await self.call(tool, **arguments)
        assert result.is_error
        (text,) = result.content
        assert isinstance(text, TextContent)
        return text.text

    async def tool(self, name: str = GENERATE) -> Tool:
        (tool,) = [tool for tool in (await self.client.list_tools()).tools if tool.name == name]
        return tool


class Agent(Caller):
    """One whose server is in this process, with what draws for it."""

    def __init__(self, client: Client, drawing: Any, castmate: Castmate[ServerSettings]) -> None:
        super().__init__(client)
        self.drawing, self.castmate = drawing, castmate


class Connect(Protocol):
    """Connects an agent; options are settings, and the client's where they begin with `client_`."""

    def __call__(
        self, drawing: base.Client | Callable[[], base.Client], **options: Any
    ) -> AbstractAsyncContextManager[Agent]: ...


@pytest.fixture(params=["auto", "legacy"])
def era(request: pytest.FixtureRequest) -> str:
    """Of the protocol: 2026-07-28 without a handshake, and 2025-11-25 with one."""
    return str(request.param)


@pytest.fixture
def connect(era: str, own_folder: Path) -> Connect:
    (own_folder / "fox.png").write_bytes(picture())

    @asynccontextmanager
    async def connected(drawing: Any, **options: Any) -> AsyncIterator[Agent]:
        of_client = {
            name.removeprefix("client_"): options.pop(name)
            for name in [*options]
            if name.startswith("client_")
        }
        with anyio.fail_after(30):
            async with Castmate.open(
                ServerSettings.load(**options), router=routed(drawing)
            ) as castmate:
                castmate.work()
                async with Client(build_server(castmate), mode=era, **of_client) as client:
                    yield Agent(client, drawing, castmate)

    return connected


@pytest.fixture
async def agent(connect: Connect) -> AsyncIterator[Agent]:
    async with connect(FlatClient()) as connected:
        yield connected


def decode(data: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    image.load()
    return image
