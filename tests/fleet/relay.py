"""A TCP relay before services: it balances, and it can be away."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

Open = Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Relay:
    """Gives each connection to the next target that takes it."""

    def __init__(self, targets: Sequence[Open]) -> None:
        self._targets = itertools.cycle(targets)
        self._num_targets = len(targets)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        """Listen, on the same port as before."""

        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving = asyncio.create_task(self._serve(reader, writer))
            self._serving.add(serving)
            serving.add_done_callback(self._serving.discard)

        self._server = await asyncio.start_server(take, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and end those that are open."""
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.transport.abort()
        self._connections.clear()
        if self._serving:
            await asyncio.wait(self._serving, timeout=10)

    async def away(self, seconds: float) -> None:
        """Be gone for so long."""
        await self.stop()
        await asyncio.sleep(seconds)
        await self.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            target_reader, target = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        self._connections.add(target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, target))
                group.create_task(_copy(target_reader, writer))
        finally:
            self._connections -= {writer, target}
            for each in (writer, target):
                each.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in range(self._num_targets - 1):
            with contextlib.suppress(OSError):
                return await next(self._targets)()
        return await next(self._targets)()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:  # one side is gone: the other one learns of it as without a relay
        writer.transport.abort()
