"""Fetch a URL that a stranger chose, without reaching anything that is not public."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

import httpcore2
from httpx2 import URL, InvalidURL

from castmate import __version__
from castmate.errors import ImageRejected

MAX_REDIRECTS: Final = 3
DEADLINE_S: Final = 15.0
CONNECT_TIMEOUT_S: Final = 3.0

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PORTS: Final = {"https": 443, "http": 80}
_HINT: Final = "Give a public https URL that answers with the picture itself, or send the picture."

# `is_global` lets these through, although they carry or reach private IPv4 addresses.
_NAT64: Final = [ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48")]
_NOT_PUBLIC: Final = [
    ip_network(text)
    for text in (
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "::/96",
        "2001::/32",
        "2002::/16",
        "fec0::/10",
    )
]

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]


class Blocked(Exception):
    """The host is not public."""


def is_public(text: str) -> bool:
    """Whether an IP address is one that anybody on the internet can reach."""
    ip = ip_address(text.split("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    elif any(ip in network for network in _NAT64):
        ip = ip_address(int(ip) & 0xFFFF_FFFF)
    if any(ip in network for network in _NOT_PUBLIC):
        return False
    return ip.is_global and not (
        ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local
    )


async def system_lookup(host: str, port: int) -> list[str]:
    """The addresses of a host, best first, as the system resolves them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass
class PinnedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to the very address that was checked, so that DNS cannot change in between.

    Attributes:
        lookup: Host and port to IP addresses.
        inner: What opens the connection.
    """

    lookup: Lookup = system_lookup
    inner: httpcore2.AsyncNetworkBackend = field(default_factory=httpcore2.AnyIOBackend)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address that answers; one bad address condemns the name.

        Raises:
            Blocked: The host has an address that is not public.
        """
        addresses = list(dict.fromkeys(await self.lookup(host, port)))
        if not addresses or not all(map(is_public, addresses)):
            raise Blocked
        for address in addresses[:-1]:
            try:
                return await self.inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue  # often an IPv6 address where there is no IPv6
        return await self.inner.connect_tcp(
            addresses[-1], port, timeout, local_address, socket_options
        )

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Refused."""
        raise Blocked

    async def sleep(self, seconds: float) -> None:
        """Wait, as httpcore asks for between retries."""
        await self.inner.sleep(seconds)


async def fetch(
    url: str,
    *,
    max_bytes: int,
    allow_http: bool = False,
    deadline_s: float = DEADLINE_S,
    backend: httpcore2.AsyncNetworkBackend | None = None,
) -> bytes:
    """Get what is at a public URL.

    Args:
        url: Where; every redirect is checked like it.
        max_bytes: Refuse more, announced or not.
        allow_http: Whether plain http is allowed beside https.
        deadline_s: For everything together: names, connections, redirects, body.
        backend: What opens connections; only tests replace it.

    Raises:
        ImageRejected: The URL is not allowed, or does not give the bytes in time.
    """
    schemes = ("https", "http") if allow_http else ("https",)
    target = _checked(url, None, schemes)
    try:
        async with (
            asyncio.timeout(deadline_s),
            httpcore2.AsyncConnectionPool(
                network_backend=backend or PinnedBackend(), max_keepalive_connections=0
            ) as pool,
        ):
            for _ in range(MAX_REDIRECTS + 1):
                answer = await _get(pool, target, max_bytes)
                if isinstance(answer, bytes):
                    return answer
                target = _checked(answer, target, schemes)
    except Blocked:
        raise _refused(target, "is not on the public internet") from None
    except TimeoutError:
        raise _refused(target, f"did not finish within {deadline_s:g} s") from None
    except (
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
        httpcore2.TimeoutException,
        OSError,
        UnicodeError,
    ) as error:
        raise _refused(
            target, f"cannot be reached ({str(error) or type(error).__name__})"
        ) from None
    raise _refused(target, f"redirects more than {MAX_REDIRECTS} times")


async def _get(pool: httpcore2.AsyncConnectionPool, url: URL, max_bytes: int) -> bytes | str:
    """The body, or where it is instead."""
    request = httpcore2.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )
    headers = [
        (b"host", url.netloc),
        (b"accept", b"image/png, image/jpeg, image/webp, image/gif, */*;q=0.1"),
        (b"accept-encoding", b"identity"),  # a compressed body could grow without bound
        (b"user-agent", f"castmate/{__version__}".encode()),
    ]
    too_much = f"has more than {max_bytes / 2**20:g} MiB"
    timeouts = {"timeout": {"connect": CONNECT_TIMEOUT_S}}
    async with pool.stream("GET", request, headers=headers, extensions=timeouts) as response:
        answered = {name.lower(): value.decode("latin-1") for name, value in response.headers}
        if response.status in _REDIRECTS and b"location" in answered:
            return answered[b"location"]
        if response.status != 200:
            raise _refused(url, f"answers with HTTP status {response.status}")
        if (encoding := answered.get(b"content-encoding", "identity").lower()) != "identity":
            raise _refused(url, f"answers compressed ({encoding})")
        if int(answered.get(b"content-length", 0)) > max_bytes:
            raise _refused(url, too_much)
        body = bytearray()
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > max_bytes:
                raise _refused(url, too_much)
        return bytes(body)


def _checked(text: str, base: URL | None, schemes: Sequence[str]) -> URL:
    try:
        url = base.join(text) if base else URL(text)
    except InvalidURL as error:
        raise ImageRejected(f"the URL cannot be read: {error}", hint=_HINT) from None
    if url.scheme not in schemes:
        raise ImageRejected(
            f"{_shown(url)} is a {url.scheme or 'relative'} URL",
            allowed=" or ".join(f"{scheme}://" for scheme in schemes),
            hint=_HINT,
        )
    if url.userinfo:
        raise _refused(url, "carries a user name or password")
    if not url.host:
        raise _refused(url, "names no host")
    if url.port not in (None, _PORTS[url.scheme]):
        raise ImageRejected(
            f"{_shown(url)} names port {url.port}", allowed=f"port {_PORTS[url.scheme]}", hint=_HINT
        )
    return url


def _refused(url: URL, why: str) -> ImageRejected:
    return ImageRejected(f"{_shown(url)} {why}", hint=_HINT)


def _shown(url: URL) -> str:
    """The URL without what may be secret: user, query and fragment."""
    text = f"{url.scheme}://{url.host}{url.path}"
    return text if len(text) <= 100 else f"{text[:97]}..."
