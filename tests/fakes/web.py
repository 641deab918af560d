"""An internet in memory: what the names and the hosts of a URL answer, whoever gives them."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Iterable, Iterator
from typing import Any

import anyio
import httpcore2
import pytest

from castmate.errors import ImageRejected
from castmate.fetch import PinnedBackend, fetch
from tests.fakes.http import PUBLIC

OTHER_PUBLIC, INTERNAL = "2606:4700::6810:84e5", "10.0.0.7"
STALL = b"<stall>"


def answer(body: bytes = b"", status: str = "200 OK", **headers: str) -> list[bytes]:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ["\r\n".join([*lines, "", ""]).encode(), body]


def redirect(to: str, status: str = "302 Found") -> list[bytes]:
    return answer(status=status, location=to)


class Web(httpcore2.AsyncNetworkBackend):
    """An internet in memory: names have addresses, and URLs have answers, whoever gives them."""

    def __init__(
        self,
        answers: dict[str, Iterable[bytes]],
        names: dict[str, list[list[str]]] | None = None,
        dead: tuple[str, ...] = (),
    ) -> None:
        self.answers, self.dead = answers, dead
        self.names: dict[str, Iterator[list[str]]] = {
            name: itertools.chain(lookups, itertools.repeat(lookups[-1]))
            for name, lookups in (names or {}).items()
        }
        self.connected: list[str] = []
        self.asked: list[str] = []
        self.backend = PinnedBackend(self.lookup, self)

    async def lookup(self, host: str, port: int) -> list[str]:
        return next(self.names[host]) if host in self.names else [PUBLIC]

    async def connect_tcp(
        self, host: str, *args: Any, **kwargs: Any
    ) -> httpcore2.AsyncNetworkStream:
        self.connected.append(host)
        if host in self.dead:
            raise httpcore2.ConnectError("no route to host")
        return Stream(self)

    async def get(self, url: str, **options: Any) -> bytes:
        merged: dict[str, Any] = {"max_bytes": 1000, "backend": self.backend} | options
        with anyio.fail_after(5):
            return await fetch(url, **merged)


class Stream(httpcore2.AsyncNetworkStream):
    def __init__(self, web: Web) -> None:
        self.web, self.scheme = web, "http"
        self.parts: Iterator[bytes] = iter(())

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> Stream:
        self.scheme, self.tls_name = "https", server_hostname
        return self

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        head = buffer.decode().split("\r\n")
        target = head[0].split()[1]
        host = next(line[6:] for line in head if line.lower().startswith("host: "))
        if self.scheme == "https":
            assert self.tls_name == host
        url = f"{self.scheme}://{host}{target}"
        self.web.asked.append(url)
        self.parts = iter(self.web.answers[url])

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        part = next(self.parts, b"")
        if part == STALL:
            await asyncio.Event().wait()
        return part

    async def aclose(self) -> None:
        pass

    def get_extra_info(self, info: str) -> Any:
        return None


async def refusal(web: Web, url: str, **options: Any) -> str:
    with pytest.raises(ImageRejected) as caught:
        await web.get(url, **options)
    return str(caught.value)
