"""No host makes us read without an end, wait for ever or decode a bomb; its mistake is told."""

from __future__ import annotations

import asyncio
import itertools
import zlib
from functools import partial
from typing import Any

import anyio
import pytest

from castmate.errors import ImageRejected
from castmate.references import resolve
from tests.fakes.web import STALL, Stream, Web, answer, refusal

pytestmark = pytest.mark.anyio


async def test_an_announced_body_over_the_limit_is_refused_unread() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1048577\r\n\r\n"
    web = Web({"https://a.example/": [head, STALL]})
    message = await refusal(web, "https://a.example/", max_bytes=2**20)
    assert "https://a.example/ has more than 1 MiB" in message


async def test_an_endless_body_is_cut_at_the_limit() -> None:
    endless = itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(bytes(4096)))
    message = await refusal(
        Web({"https://a.example/": endless}), "https://a.example/", max_bytes=2**20
    )
    assert "has more than 1 MiB" in message


async def test_a_body_that_drips_is_given_up_at_the_deadline() -> None:
    class Dripping(Stream):
        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            await asyncio.sleep(0)
            return next(self.parts, b".")

    class DrippingWeb(Web):
        async def connect_tcp(self, host: str, *args: Any, **kwargs: Any) -> Stream:
            return Dripping(self)

    web = DrippingWeb({"https://a.example/": [b"HTTP/1.1 200 OK\r\n\r\n"]})
    message = await refusal(web, "https://a.example/", deadline_s=0.05, max_bytes=2**30)
    assert "did not finish within 0.05 s" in message


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nfoxy",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000,
    ],
    ids=["negative", "no number", "huge", "two", "strange", "endless headers"],
)
async def test_a_head_that_lies_is_refused(head: bytes) -> None:
    message = await refusal(Web({"https://a.example/": [head, b"fox"]}), "https://a.example/")
    assert "cannot be reached (" in message or "has more than" in message


async def test_a_pixel_bomb_is_refused_by_whoever_decodes_what_was_fetched() -> None:
    bomb = bomb_png(60_000, 60_000)
    web = Web({"https://a.example/bomb.png": answer(bomb)})
    with anyio.fail_after(5), pytest.raises(ImageRejected, match=r"far too many pixels|at most 40"):
        await resolve("https://a.example/bomb.png", fetch=partial(web.get, max_bytes=2**20))


def bomb_png(width: int, height: int) -> bytes:
    """A small file that says it has many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + kind + body + checksum

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


async def test_a_compressed_body_is_refused() -> None:
    web = Web({"https://a.example/": answer(b"bomb", content_encoding="gzip")})
    assert "answers compressed (gzip)" in await refusal(web, "https://a.example/")


@pytest.mark.parametrize(
    "answers", [[STALL], [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", b"fo", STALL]]
)
async def test_a_host_that_stalls_is_given_up_at_the_deadline(answers: list[bytes]) -> None:
    message = await refusal(
        Web({"https://a.example/": answers}), "https://a.example/", deadline_s=0.05
    )
    assert "did not finish within 0.05 s" in message


@pytest.mark.parametrize(
    "status", ["404 Not Found", "500 Internal Server Error", "304 Not Modified"]
)
async def test_another_status_is_told(status: str) -> None:
    web = Web({"https://a.example/": answer(status=status)})
    assert f"answers with HTTP status {status[:3]}" in await refusal(web, "https://a.example/")


@pytest.mark.parametrize("garbage", [b"", b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 200 OK\r\nx"])
async def test_a_host_that_does_not_speak_http_is_told(garbage: bytes) -> None:
    message = await refusal(Web({"https://a.example/": [garbage]}), "https://a.example/")
    assert "https://a.example/ cannot be reached (" in message


async def test_an_error_keeps_the_query_to_itself() -> None:
    web = Web({"https://a.example/f.png?token=secret": answer(status="403 Forbidden")})
    assert "secret" not in await refusal(web, "https://a.example/f.png?token=secret")


async def test_cancelling_stops_a_fetch_at_once() -> None:
    web = Web({"https://a.example/": [STALL]})
    with anyio.move_on_after(0.05) as scope:
        await web.get("https://a.example/")
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    "encoding", ["", " ", "utf-8", "aws-chunked", "binary", "image/png", "none"]
)
async def test_an_empty_or_invented_encoding_of_object_storage_is_no_compression(
    encoding: str,
) -> None:
    web = Web({"https://a.example/fox.png": answer(b"fox", content_encoding=encoding)})
    assert await web.get("https://a.example/fox.png") == b"fox"


@pytest.mark.parametrize("encoding", ["GZIP", "aws-chunked, gzip", "br", "x-gzip", "zstd"])
async def test_a_real_compression_is_refused_by_name(encoding: str) -> None:
    web = Web({"https://a.example/fox.png": answer(b"fox", content_encoding=encoding)})
    message = await refusal(web, "https://a.example/fox.png")
    assert f"answers compressed ({encoding.split()[-1].lower()})" in message
