"""Gets the webhooks of a fleet, as the proxy through which the gateways send them.

Addresses of this machine are refused as targets; the proxy is asked for a name that nobody has.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

from castmate_mcp.rest.webhooks import signature

HOOK = "http://hooks.invalid/ended"


class Receiver:
    """Counts what it is told; what is signed with none of the known secrets is kept apart.

    Attributes:
        told: How often, by prediction.
        forged: Predictions whose signature was wrong.
        secrets: Those of the keys.
        port: Where it listens.
    """

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.forged: list[str] = []
        self.secrets: list[str] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._waiting: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    @property
    def settings(self) -> dict[str, str]:
        """What lets a gateway send its webhooks here."""
        return {
            "HTTP_PROXY": f"http://127.0.0.1:{self.port}",
            "NO_PROXY": "127.0.0.1",
            "CASTMATE_FETCH_PROXY": "true",
            "CASTMATE_ALLOW_HTTP": "true",
        }

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more."""
        assert self._server is not None
        self._server.close()

    async def received_of(self, prediction_id: str) -> None:
        """Wait for the first word of a prediction."""
        await self._waiting[prediction_id].wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers["content-length"]))
            self._hear(headers, body)
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # a gateway was killed
        finally:
            writer.close()

    def _hear(self, headers: dict[str, str], body: bytes) -> None:
        name, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
        known = {signature(secret, name, timestamp, body) for secret in self.secrets}
        if headers["webhook-signature"] not in known:
            self.forged.append(name)
        self.received[name] += 1
        self._waiting[name].set()
