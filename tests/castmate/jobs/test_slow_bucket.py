"""A bucket that does not answer is away, and one that is only slow is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from castmate.errors import Unavailable
from castmate.jobs.storage import Storage
from tests.fleet.services import free_port

pytestmark = pytest.mark.anyio

ANSWER_S = 0.2
MIB = 2**20


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Storage]:
    """Opens a bucket whose server is at a port of this machine."""

    def open_bucket(port: int) -> Storage:
        values = {
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "castmate",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        return Storage.open("s3://castmate/pictures", tmp_path, answer_s=ANSWER_S)

    return open_bucket


@asynccontextmanager
async def answering(
    answer: Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A server that reads a request and then does as told; gives its port."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        await answer(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in connections:
            connection.transport.abort()


async def say_nothing(writer: asyncio.StreamWriter) -> None:
    """Leave whoever asks waiting."""


async def _list(storage: Storage) -> None:
    async for _ in storage.list("outputs"):
        raise AssertionError("it was told of something")


OPERATIONS: dict[str, Callable[[Storage], Awaitable[object]]] = {
    "put": lambda storage: storage.put("outputs/a/0.png", b"picture"),
    "get": lambda storage: storage.get("outputs/a/0.png"),
    "exists": lambda storage: storage.exists("outputs/a/0.png"),
    "delete": lambda storage: storage.delete("outputs/a/0.png"),
    "list": _list,
    "check": lambda storage: storage.check(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_one_that_accepts_and_says_nothing_is_unavailable_after_the_time_for_an_answer(
    opened: Callable[[int], Storage], operation: str
) -> None:
    async with answering(say_nothing) as port:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"did not answer in time .*CASTMATE_STORAGE_URL"):
            await OPERATIONS[operation](opened(port))
        assert ANSWER_S <= time.monotonic() - began < 10 * ANSWER_S


async def test_a_large_picture_may_take_its_time(opened: Callable[[int], Storage]) -> None:
    data = bytes(MIB)

    async def trickle(writer: asyncio.StreamWriter) -> None:
        head = "HTTP/1.1 200 OK\r\nETag: a\r\nLast-Modified: Fri, 15 Jan 2027 12:00:00 GMT\r\n"
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode())
        for begin in range(0, len(data), MIB // 4):
            writer.write(data[begin : begin + MIB // 4])
            await asyncio.sleep(ANSWER_S / 2)

    async with answering(trickle) as port:
        began = time.monotonic()
        assert await opened(port).get("outputs/a/0.png") == data
        assert time.monotonic() - began > ANSWER_S


async def test_one_that_is_not_there_is_unavailable_within_seconds(
    opened: Callable[[int], Storage],
) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match="CASTMATE_STORAGE_URL"):
        await opened(free_port()).put("outputs/a/0.png", b"picture")
    assert time.monotonic() - began < 5
