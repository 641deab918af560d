"""A proxy that writes down what it is asked for, and answers every plain request itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy")


@dataclass
class RecordingProxy:
    """What was asked for: the first line of each request, and its credentials."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)
    body: bytes = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split()
            self.asked.append(f"{method} {target}")
            self.credentials += [line for line in head if line.lower().startswith("proxy-auth")]
            status = "403 Forbidden" if method == "CONNECT" else "200 OK"
            length = f"content-length: {0 if method == 'CONNECT' else len(self.body)}"
            writer.write(f"HTTP/1.1 {status}\r\n{length}\r\nconnection: close\r\n\r\n".encode())
            writer.write(b"" if method == "CONNECT" else self.body)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def recording_proxy(body: bytes = b"") -> AsyncIterator[RecordingProxy]:
    """Run one on a loopback port."""
    proxy = RecordingProxy(body=body)
    server = await asyncio.start_server(proxy.answer, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await server.wait_closed()
