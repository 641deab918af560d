"""Sending to a URL that somebody else chose reaches what is public, once, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from castmate.errors import Unavailable
from castmate.fetch import PinnedBackend, send
from tests.fakes.http import PUBLIC, Answer, Call, Tunnel, serving

pytestmark = pytest.mark.anyio


class Receiver:
    """A host that is public by name, and keeps what it is sent."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answer = Answer(204)
        self.addresses = [PUBLIC]
        self.port = 0

    async def handle(self, call: Call) -> Answer:
        self.calls.append(call)
        return self.answer

    async def lookup(self, host: str, port: int) -> list[str]:
        return self.addresses

    async def send(self, url: str = "http://a.example/hook?x=1", **options: Any) -> int:
        backend = PinnedBackend(self.lookup, Tunnel(self.port))
        with anyio.fail_after(5):
            merged: dict[str, Any] = {"allow_http": True, "backend": backend} | options
            return await send(url, b'{"a": 1}', **merged)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    async with serving(made.handle) as port:
        made.port = port
        yield made


async def test_method_headers_and_body_arrive_and_the_status_comes_back(
    receiver: Receiver,
) -> None:
    status = await receiver.send(method="PUT", headers={"Content-Type": "application/json"})
    (call,) = receiver.calls
    assert status == 204
    assert (call.method, call.path, call.body) == ("PUT", "/hook", b'{"a": 1}')
    assert call.headers["content-type"] == "application/json"
    assert call.headers["host"] == "a.example"


async def test_the_framing_is_ours_whatever_headers_are_asked_for(receiver: Receiver) -> None:
    headers = {"Content-Length": "1", "Host": "b.example", "Transfer-Encoding": "chunked"}
    await receiver.send(headers=headers)
    (call,) = receiver.calls
    assert (call.body, call.headers["host"]) == (b'{"a": 1}', "a.example")
    assert "transfer-encoding" not in call.headers


@pytest.mark.parametrize("headers", [{"X-A": "b\r\nX-C: d"}, {"X A": "b"}, {"X-A": "\0"}])
async def test_a_header_that_would_break_out_is_refused(
    receiver: Receiver, headers: dict[str, str]
) -> None:
    with pytest.raises(Unavailable):
        await receiver.send(headers=headers)
    assert receiver.calls == []


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.answer = Answer(307, headers={"location": "http://a.example/other"})
    assert await receiver.send() == 307
    assert len(receiver.calls) == 1


@pytest.mark.parametrize(
    ("url", "addresses", "expected"),
    [
        ("http://a.example/", ["10.0.0.7"], "http://a.example/ is not on the public internet."),
        ("http://a.example/", [PUBLIC, "::1"], "is not on the public internet."),
        ("http://169.254.169.254/", ["169.254.169.254"], "is not on the public internet."),
        ("http://user:secret@a.example/", [PUBLIC], "carries a user name or password."),
        ("http://a.example:22/", [PUBLIC], "names port 22."),
        ("ftp://a.example/", [PUBLIC], "is a ftp URL."),
    ],
)
async def test_what_is_not_public_gets_nothing(
    receiver: Receiver, url: str, addresses: list[str], expected: str
) -> None:
    receiver.addresses = addresses
    with pytest.raises(Unavailable) as caught:
        await receiver.send(url)
    assert expected in str(caught.value)
    assert "secret" not in str(caught.value)
    assert receiver.calls == []


async def test_plain_http_is_used_only_where_it_is_allowed(receiver: Receiver) -> None:
    with pytest.raises(Unavailable, match="is a http URL"):
        await receiver.send(allow_http=False)


async def test_a_host_that_stalls_is_given_up_at_the_deadline(receiver: Receiver) -> None:
    receiver.answer = Answer(hang=True)
    with pytest.raises(Unavailable, match=r"did not finish within 0\.1 s\."):
        await receiver.send(deadline_s=0.1)


async def test_a_host_that_drops_the_connection_is_told(receiver: Receiver) -> None:
    receiver.answer = Answer(drop=True)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await receiver.send()
