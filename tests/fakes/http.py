"""A small HTTP server on a loopback port that can also drop, hang and answer nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpcore2

PUBLIC = "93.184.215.14"


@dataclass(frozen=True)
class Call:
    """One request as it came over the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What goes back; `drop` closes the connection instead, `hang` never answers."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    hang: bool = False


Handler = Callable[[Call], Awaitable[Answer]]


@asynccontextmanager
async def serving(handler: Handler, port: int = 0) -> AsyncIterator[int]:
    """Answer with `handler` on the port that is yielded."""
    running: set[asyncio.Task[None]] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        running.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                answer = await handler(await read_call(reader))
                if answer.hang:
                    await asyncio.Event().wait()
                if not answer.drop:
                    writer.write(as_bytes(answer))
                    await writer.drain()
        except asyncio.CancelledError:
            pass  # the server closes
        finally:
            running.discard(task)
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in [*running]:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await server.wait_closed()


async def read_call(reader: asyncio.StreamReader) -> Call:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split()
    fields = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Call(method, urlsplit(target).path, headers, body)


def as_bytes(answer: Answer) -> bytes:
    headers = {"content-length": str(len(answer.body)), "connection": "close"} | answer.headers
    lines = [f"HTTP/1.1 {answer.status} Status", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + answer.body


class Tunnel(httpcore2.AnyIOBackend):
    """Leads a public address to one port of this machine: a test reaches nothing public."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        assert host == PUBLIC, f"a test reaches out to {host}"
        return await super().connect_tcp("127.0.0.1", self.port, *args, **kwargs)
