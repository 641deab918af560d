"""Who goes through the proxy of the environment, seen at the proxy."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from castmate import fetch as fetching
from castmate import proxies
from castmate.clients.triton.client import TritonClient
from castmate.clients.wavespeed.api import NotSent, WaveSpeedApi
from castmate.errors import ImageRejected, SettingsError, Unavailable
from castmate.fetch import fetch, send
from castmate.references import resolve
from tests.castmate.command import castmate_
from tests.doubles import picture
from tests.fakes.http import PUBLIC
from tests.fakes.proxy import VARIABLES, RecordingProxy, recording_proxy

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder", "one_loop")]

NAMES = {
    "public.example": [PUBLIC],
    "inside.example": ["10.0.0.7"],
    "rebinding.example": [PUBLIC, "127.0.0.1"],
    "localhost": ["127.0.0.1"],
}


async def lookup(host: str, port: int) -> list[str]:
    """A small internet; IP addresses are their own."""
    if host in NAMES:
        return NAMES[host]
    if host.replace(".", "").isdigit():
        return [host]
    raise socket.gaierror(f"no such name: {host}")


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RecordingProxy]:
    """A proxy that the environment names, and names that are looked up in this file."""
    monkeypatch.setattr(proxies, "system_lookup", lookup)
    monkeypatch.setattr(fetching, "system_lookup", lookup)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    async with recording_proxy(picture()) as running:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, running.url)
        yield running


async def ask_triton(url: str) -> None:
    client = TritonClient((url,), probe_timeout_s=2.0)
    try:
        with pytest.raises(Unavailable):
            await client.probe(url)
    finally:
        await client.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_triton_server_of_this_machine_is_asked_without_a_proxy(
    proxy: RecordingProxy, host: str
) -> None:
    await ask_triton(f"{host}:1")
    assert proxy.asked == []


async def test_a_triton_server_elsewhere_is_asked_as_the_environment_says(
    proxy: RecordingProxy,
) -> None:
    await ask_triton(f"{PUBLIC}:8001")
    assert f"CONNECT {PUBLIC}:8001" in proxy.asked


@pytest.mark.parametrize(
    ("host", "direct"),
    [("10.0.0.7", True), ("inside.example", True), (PUBLIC, False), ("public.example", False)],
)
@pytest.mark.usefixtures("proxy")
async def test_private_networks_are_reached_directly_by_address_and_by_name(
    host: str, direct: bool
) -> None:
    assert await proxies.is_direct(f"{host}:8001") == direct
    assert not await proxies.is_direct("only-the-proxy-knows.example:8001")


async def test_the_command_asks_the_hosted_service_through_the_proxy_and_triton_here_without(
    proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTMATE_CLIENTS", "triton,wavespeed")
    monkeypatch.setenv("CASTMATE_TRITON_URLS", "127.0.0.1:1")
    monkeypatch.setenv("CASTMATE_WAVESPEED_API_KEY", "wsk_x")
    monkeypatch.setenv("CASTMATE_WAVESPEED_BASE_URL", "https://hosted.example")
    result = await asyncio.to_thread(castmate_, "doctor")
    assert result.exit_code == 1
    assert set(proxy.asked) == {"CONNECT hosted.example:443"}


async def submit(base_url: str) -> None:
    api = WaveSpeedApi(base_url, SecretStr("wsk_x"))
    try:
        with pytest.raises(NotSent):
            await api.submit("wavespeed-ai/instant-character", {"prompt": "waving"})
    finally:
        await api.aclose()


async def test_wavespeed_is_reached_through_the_proxy_and_a_refused_tunnel_charges_nothing(
    proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", proxy.url.replace("//", "//me:secret@"))
    await submit("https://hosted.example")
    assert proxy.asked == ["CONNECT hosted.example:443"]
    assert proxy.credentials == ["Proxy-Authorization: Basic bWU6c2VjcmV0"]


async def test_a_loopback_api_and_what_no_proxy_names_are_not(
    proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await submit("http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "other.example,.invalid")
    assert proxies.proxy_for("https://hosted.invalid/x") is None
    await submit("https://hosted.invalid")
    assert proxy.asked == []


async def test_a_kind_of_proxy_that_is_not_spoken_is_an_error_with_the_way_out(
    proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(SettingsError, match=r"HTTPS_PROXY.* socks5:// .*http:// .*NO_PROXY"):
        await fetch("https://public.example/fox.png", max_bytes=10, use_proxy=True)


async def test_urls_of_strangers_are_fetched_without_the_proxy_unless_it_is_allowed(
    proxy: RecordingProxy,
) -> None:
    url = "http://inside.example/fox.png"
    with pytest.raises(ImageRejected):
        await resolve(url, allow_http=True)
    assert proxy.asked == []
    url = "http://public.example/fox.png"
    reference = await resolve(url, allow_http=True, use_proxy=True)
    assert reference.image.size == (64, 48)
    assert proxy.asked == [f"GET {url}"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.0.0.7", "169.254.169.254", "inside.example", "rebinding.example"]
)
async def test_the_proxy_is_no_way_into_the_internal_network(
    proxy: RecordingProxy, host: str
) -> None:
    for url in (f"http://{host}/fox.png", f"https://{host}/fox.png"):
        with pytest.raises(ImageRejected, match="not on the public internet"):
            await fetch(url, max_bytes=10, allow_http=True, use_proxy=True)
    with pytest.raises(Unavailable, match="not on the public internet"):
        await send(f"https://{host}/hook", b"{}", use_proxy=True)
    assert proxy.asked == []


async def test_a_name_that_only_the_proxy_knows_is_left_to_it(proxy: RecordingProxy) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await send("https://far.example/hook", b"{}", use_proxy=True)
    assert proxy.asked == ["CONNECT far.example:443"]
