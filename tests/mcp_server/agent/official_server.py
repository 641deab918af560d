"""Our server on a port with the conformance suite's fixtures, for `python -m`-like starts."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn
from mcp.server.streamable_http import EventId, EventMessage, EventStore, StreamId
from mcp.types import JSONRPCMessage

from castmate.service import Castmate
from castmate.settings import Settings
from castmate_mcp.agent.streamable import build_mcp_app
from castmate_mcp.app import build_app
from tests.doubles import FlatClient, routed
from tests.mcp_server.agent.conformance.fixtures import register


class MemoryEvents(EventStore):
    """What a stream has sent, for clients that come back."""

    def __init__(self) -> None:
        self._events: list[tuple[StreamId, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: EventId, send_callback):  # type: ignore[no-untyped-def]
        last = int(last_event_id)
        stream = self._events[last - 1][0]
        for number, (of, message) in enumerate(self._events[last:], last + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


async def main(data_dir: Path) -> None:
    """Serve until it is killed; prints the address."""
    settings = Settings.load(data_dir=data_dir, image_roots=())
    async with Castmate.open(settings, router=routed(FlatClient())) as castmate:
        castmate.work()
        mcp = build_mcp_app(
            castmate, extra=(register,), event_store=MemoryEvents(), retry_interval=100
        )
        app = build_app(castmate, mcp=mcp)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
            await uvicorn.Server(uvicorn.Config(app, log_config=None)).serve([listener])


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
