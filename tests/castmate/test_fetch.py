"""No URL, redirect or DNS answer makes us reach what is not public, or read without an end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import anyio
import httpcore2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from castmate.errors import ImageRejected
from castmate.fetch import PinnedBackend, fetch, is_public, system_lookup
from castmate.references import resolve

pytestmark = pytest.mark.anyio

PUBLIC, OTHER_PUBLIC, INTERNAL = "93.184.215.14", "2606:4700::6810:84e5", "10.0.0.7"
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


async def test_the_body_of_a_public_url_is_returned() -> None:
    web = Web({"https://a.example/fox.png?w=1": answer(b"fox")})
    assert await web.get("https://a.example/fox.png?w=1") == b"fox"
    assert web.connected == [PUBLIC]


async def test_the_name_stays_in_tls_and_host_header_while_the_checked_address_is_connected() -> (
    None
):
    web = Web({"https://a.example/": answer(b"fox")}, {"a.example": [[PUBLIC, OTHER_PUBLIC]]})
    assert await web.get("https://a.example") == b"fox"
    assert web.connected == [PUBLIC]
    assert web.asked == ["https://a.example/"]


async def test_the_next_address_is_tried_where_the_first_does_not_answer() -> None:
    web = Web(
        {"https://a.example/": answer(b"fox")},
        {"a.example": [[OTHER_PUBLIC, PUBLIC]]},
        dead=(OTHER_PUBLIC,),
    )
    assert await web.get("https://a.example/") == b"fox"
    assert web.connected == [OTHER_PUBLIC, PUBLIC]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "0",
        "10.1.2.3",
        "169.254.169.254",
        "192.168.0.1",
        "172.16.0.1",
        "100.64.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[fe80::1]",
        "[fc00::1]",
        "[64:ff9b::7f00:1]",
        "[::127.0.0.1]",
        "127。0。0。1",
    ],
)
async def test_an_internal_host_is_refused_however_it_is_written(host: str) -> None:
    web = Web({})
    web.backend.lookup = system_lookup
    assert "is not on the public internet" in await refusal(web, f"https://{host}/fox.png")
    assert web.connected == []


@pytest.mark.parametrize(
    "addresses", [[INTERNAL], [PUBLIC, INTERNAL], [INTERNAL, PUBLIC], ["::1", PUBLIC], []]
)
async def test_a_name_with_one_internal_address_is_refused(addresses: list[str]) -> None:
    web = Web({}, {"a.example": [addresses]})
    assert "is not on the public internet" in await refusal(web, "https://a.example/")
    assert web.connected == []


async def test_a_name_that_turns_internal_between_two_requests_is_refused() -> None:
    web = Web(
        {"https://a.example/": redirect("/again")}, {"a.example": [[PUBLIC], ["169.254.169.254"]]}
    )
    assert "https://a.example/again is not on the public" in await refusal(
        web, "https://a.example/"
    )
    assert web.connected == [PUBLIC]


async def test_a_name_that_alternates_is_reached_only_while_it_is_public() -> None:
    lookups = [[PUBLIC], ["127.0.0.1"]] * 3
    web = Web({"https://a.example/": answer(b"fox")}, {"a.example": lookups})
    bodies = []
    for _ in range(6):
        try:
            bodies.append(await web.get("https://a.example/"))
        except ImageRejected as error:
            bodies.append(b"refused" if "is not on the public internet" in str(error) else b"?")
    assert bodies == [b"fox", b"refused"] * 3
    assert web.connected == [PUBLIC] * 3


async def test_a_name_is_looked_up_once_for_a_connection() -> None:
    lookups = []

    async def lookup(host: str, port: int) -> list[str]:
        lookups.append(host)
        return [PUBLIC]

    web = Web({"https://a.example/": answer(b"fox")})
    web.backend.lookup = lookup
    assert await web.get("https://a.example/") == b"fox"
    assert lookups == ["a.example"]


async def test_redirects_are_followed_relative_ones_too() -> None:
    web = Web(
        {
            "https://a.example/1": redirect("two?x=1", "301 Moved Permanently"),
            "https://a.example/two?x=1": redirect("//b.example/3", "307 Temporary Redirect"),
            "https://b.example/3": redirect("https://c.example/4", "308 Permanent Redirect"),
            "https://c.example/4": answer(b"fox"),
        }
    )
    assert await web.get("https://a.example/1") == b"fox"


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("https://10.0.0.7/", "is not on the public internet"),
        ("https://169.254.169.254/latest/meta-data/", "is not on the public internet"),
        ("http://a.example/", "is a http URL; allowed: https://"),
        ("file:///etc/passwd", "is a file URL; allowed: https://"),
        ("https://user:secret@a.example/", "carries a user name or password"),
        ("https://a.example:22/", "names port 22; allowed: port 443"),
        ("https://a.example/", "redirects more than 3 times"),
        ("https://a.example/\x7f", "the URL cannot be read"),
    ],
)
async def test_a_hostile_redirect_is_refused(to: str, reason: str) -> None:
    web = Web(
        {"https://a.example/": redirect(to)},
        {"10.0.0.7": [["10.0.0.7"]], "169.254.169.254": [["169.254.169.254"]]},
    )
    told = await refusal(web, "https://a.example/")
    assert reason in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://a.example/", "is a http URL"),
        ("ftp://a.example/", "is a ftp URL"),
        ("//a.example/", "is a relative URL"),
        ("https://user@a.example/", "carries a user name"),
        ("https://a.example\\@10.0.0.7/", "carries a user name"),
        ("https://a.example:8443/", "names port 8443"),
        ("https://a.example:22/", "names port 22"),
        ("https://a.example:80/", "names port 80"),
        ("gopher://a.example/", "is a gopher URL"),
        ("file:///etc/passwd", "is a file URL"),
        ("https:///x", "names no host"),
        ("https://0177.0.0.1/", "cannot be read"),
        ("https://a.example:99999999/", "names port 99999999"),
    ],
)
async def test_a_url_that_is_not_plain_https_is_refused_before_anything_is_looked_up(
    url: str, reason: str
) -> None:
    web = Web({})
    told = await refusal(web, url)
    assert reason in told
    assert "Give a public https URL" in told
    assert web.connected == []


async def test_plain_http_is_taken_only_where_it_is_allowed() -> None:
    web = Web({"http://a.example/": answer(b"fox")})
    assert await web.get("http://a.example/", allow_http=True) == b"fox"


async def test_an_announced_body_over_the_limit_is_refused_unread() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1048577\r\n\r\n"
    web = Web({"https://a.example/": [head, STALL]})
    told = await refusal(web, "https://a.example/", max_bytes=2**20)
    assert "https://a.example/ has more than 1 MiB" in told


async def test_an_endless_body_is_cut_at_the_limit() -> None:
    endless = itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(bytes(4096)))
    told = await refusal(
        Web({"https://a.example/": endless}), "https://a.example/", max_bytes=2**20
    )
    assert "has more than 1 MiB" in told


async def test_a_body_that_drips_is_given_up_at_the_deadline() -> None:
    class Dripping(Stream):
        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            await asyncio.sleep(0)
            return next(self.parts, b".")

    class DrippingWeb(Web):
        async def connect_tcp(self, host: str, *args: Any, **kwargs: Any) -> Stream:
            return Dripping(self)

    web = DrippingWeb({"https://a.example/": [b"HTTP/1.1 200 OK\r\n\r\n"]})
    told = await refusal(web, "https://a.example/", deadline_s=0.05, max_bytes=2**30)
    assert "did not finish within 0.05 s" in told


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
    told = await refusal(Web({"https://a.example/": [head, b"fox"]}), "https://a.example/")
    assert "cannot be reached (" in told or "has more than" in told


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
    told = await refusal(
        Web({"https://a.example/": answers}), "https://a.example/", deadline_s=0.05
    )
    assert "did not finish within 0.05 s" in told


@pytest.mark.parametrize(
    "status", ["404 Not Found", "500 Internal Server Error", "304 Not Modified"]
)
async def test_another_status_is_told(status: str) -> None:
    web = Web({"https://a.example/": answer(status=status)})
    assert f"answers with HTTP status {status[:3]}" in await refusal(web, "https://a.example/")


@pytest.mark.parametrize("garbage", [b"", b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 200 OK\r\nx"])
async def test_a_host_that_does_not_speak_http_is_told(garbage: bytes) -> None:
    told = await refusal(Web({"https://a.example/": [garbage]}), "https://a.example/")
    assert "https://a.example/ cannot be reached (" in told


async def test_an_unknown_or_impossible_name_is_told() -> None:
    web = Web({})
    web.backend.lookup = system_lookup
    for host in ("fox.invalid", "a" * 70 + ".example"):
        assert f"https://{host}/ cannot be reached (" in await refusal(web, f"https://{host}/")


async def test_an_error_keeps_the_query_to_itself() -> None:
    web = Web({"https://a.example/f.png?token=secret": answer(status="403 Forbidden")})
    assert "secret" not in await refusal(web, "https://a.example/f.png?token=secret")


async def test_cancelling_stops_a_fetch_at_once() -> None:
    web = Web({"https://a.example/": [STALL]})
    with anyio.move_on_after(0.05) as scope:
        await web.get("https://a.example/")
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.255.255.255",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_address_that_is_not_public_is_known_as_such(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, OTHER_PUBLIC, "8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_a_public_address_is_known_as_such(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_every_ipv6_dress(address: IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        dressed = IPv6Address(int(IPv6Address(prefix)) | int(address))
        assert is_public(str(dressed)) == is_public(str(address))
    for network in ("::/96", "2002::/16"):
        shift = 0 if network == "::/96" else 80
        dressed = IPv6Address(int(ip_network(network).network_address) | int(address) << shift)
        assert not is_public(str(dressed))


@given(st.text("ahtps:/@.\\?#[]%1270 é\n\0", max_size=40))
def test_whatever_the_url_it_gives_a_picture_or_a_refusal(text: str) -> None:
    web = Web({})
    with contextlib.suppress(ImageRejected, KeyError):  # KeyError: nothing is at that URL
        asyncio.run(web.get(f"https:{text}"))
