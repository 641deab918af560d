"""MCP over stdio: the SDK's transport, which by itself leaves unreadable messages unanswered."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter
from pydantic import ValidationError

from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.surrogates import mend

_UNREADABLE: Final = "json_invalid"
Item = SessionMessage | Exception


async def serve(server: StrictServer) -> None:
    """Answer on stdin and stdout until stdin ends."""
    low = server._lowlevel_server
    async with stdio_server() as (incoming, outgoing), anyio.create_task_group() as group:
        readable, reader = anyio.create_memory_object_stream[Item](0)
        group.start_soon(_mend, incoming, readable)
        await low.run(reader, outgoing, low.create_initialization_options())
        group.cancel_scope.cancel()


async def _mend(incoming: AsyncIterable[Item], readable: MemoryObjectSendStream[Item]) -> None:
    async with readable:
        async for item in incoming:
            await readable.send(_mended(item) if isinstance(item, ValidationError) else item)


def _mended(error: ValidationError) -> Item:
    (detail, *_) = error.errors(include_url=False)
    line = detail["input"]
    if detail["type"] == _UNREADABLE and isinstance(line, str):
        with contextlib.suppress(ValidationError):
            mended = mend(line.encode())
            return SessionMessage(jsonrpc_message_adapter.validate_json(mended, by_name=False))
    return error
