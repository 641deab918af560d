"""No URL, redirect or DNS answer makes us reach what is not public."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castmate.addresses import system_lookup
from castmate.errors import ImageRejected
from tests.fakes.http import PUBLIC
from tests.fakes.web import INTERNAL, OTHER_PUBLIC, Web, answer, redirect, refusal

pytestmark = pytest.mark.anyio


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
    message = await refusal(web, "https://a.example/")
    assert reason in message
    assert "secret" not in message


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
    message = await refusal(web, url)
    assert reason in message
    assert "Give a public https URL" in message
    assert web.connected == []


async def test_plain_http_is_taken_only_where_it_is_allowed() -> None:
    web = Web({"http://a.example/": answer(b"fox")})
    assert await web.get("http://a.example/", allow_http=True) == b"fox"


async def test_an_unknown_or_impossible_name_is_told() -> None:
    web = Web({})
    web.backend.lookup = system_lookup
    for host in ("fox.invalid", "a" * 70 + ".example"):
        assert f"https://{host}/ cannot be reached (" in await refusal(web, f"https://{host}/")


@given(st.text("ahtps:/@.\\?#[]%1270 é\n\0", max_size=40))
def test_whatever_the_url_it_gives_a_picture_or_a_refusal(text: str) -> None:
    web = Web({})
    with contextlib.suppress(ImageRejected, KeyError):  # KeyError: nothing is at that URL
        asyncio.run(web.get(f"https:{text}"))
