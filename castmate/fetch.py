"""Downloads from and sends to untrusted URLs, at public addresses only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import httpcore2
from httpx2 import URL, InvalidURL, Proxy

from castmate import __version__
from castmate.addresses import Lookup, is_public, system_lookup
from castmate.errors import ImageRejected, Unavailable
from castmate.proxies import proxy_for
from castmate.shorten import shorten

MAX_REDIRECTS: Final = 3
DEADLINE_S: Final = 15.0
CONNECT_TIMEOUT_S: Final = 3.0
MAX_ANSWER_BYTES: Final = 2**20

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PORTS: Final = {"https": 443, "http": 80}
_USER_AGENT: Final = f"castmate/{__version__}"
_GET_HEADERS: Final = {
    "accept": "image/png, image/jpeg, image/webp, image/gif, image/avif, image/heic, */*;q=0.1",
    "accept-encoding": "identity",  # a compressed body could expand without bound
    "user-agent": _USER_AGENT,
}
# Object storage repeats whatever Content-Encoding an upload had: none, `utf-8`, `aws-chunked`, a
# media type. Only these mean that the bytes are not the picture's own.
_COMPRESSIONS: Final = frozenset(
    {"br", "compress", "dcb", "dcz", "deflate", "gzip", "x-compress", "x-gzip", "zstd"}
)
_HINT: Final = "Give a public https URL that answers with the picture itself, or send the picture."


class Blocked(Exception):
    """The host is not public."""


@dataclass
class PinnedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to the address that was checked, so that DNS cannot change in between.

    Attributes:
        lookup: Resolves host and port to IP addresses.
        inner: Opens the connection.
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
        """Connect to the first address that answers; one private address blocks the whole host.

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
                continue  # often an IPv6 address on a machine without IPv6
        return await self.inner.connect_tcp(
            addresses[-1], port, timeout, local_address, socket_options
        )

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Always fails."""
        raise Blocked

    async def sleep(self, seconds: float) -> None:
        """Wait, as httpcore asks for between retries."""
        await self.inner.sleep(seconds)


async def fetch(
    url: str,
    *,
    max_bytes: int,
    allow_http: bool = False,
    use_proxy: bool = False,
    deadline_s: float = DEADLINE_S,
    backend: httpcore2.AsyncNetworkBackend | None = None,
) -> bytes:
    """Download from a public URL.

    Args:
        url: The address; redirects are checked in the same way.
        max_bytes: The longest body to accept, announced or not.
        allow_http: Whether plain http is allowed as well as https.
        use_proxy: Whether to go through the proxy that the environment names, if it names one.
            The proxy looks the host up again, so the check here guarantees nothing.
        deadline_s: For the whole download: name resolution, connections, redirects, body.
        backend: Opens connections; only tests replace it.

    Raises:
        ImageRejected: The URL is not allowed, or does not deliver the bytes in time.
    """
    schemes = _schemes(allow_http)
    try:
        target = _checked(url, None, schemes)
        async with _reaching(target, deadline_s, backend, use_proxy) as pools:
            for _ in range(MAX_REDIRECTS + 1):
                answer = await _exchange(pools, target, "GET", _GET_HEADERS, b"", max_bytes)
                if answer.status == 200:
                    return answer.body
                if answer.location is None:
                    raise _Refused(target, f"answers with HTTP status {answer.status}")
                target = _checked(answer.location, target, schemes)
            raise _Refused(target, f"redirects more than {MAX_REDIRECTS} times")
    except _Refused as refused:
        raise ImageRejected(refused.message, allowed=refused.allowed, hint=_HINT) from None


async def send(
    url: str,
    body: bytes,
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    allow_http: bool = False,
    use_proxy: bool = False,
    deadline_s: float = DEADLINE_S,
    backend: httpcore2.AsyncNetworkBackend | None = None,
) -> int:
    """Send bytes to a public URL, once, without following redirects.

    Args:
        url: The address.
        body: The bytes to send.
        method: POST or PUT.
        headers: In addition to host, length and user agent.
        allow_http: Whether plain http is allowed as well as https.
        use_proxy: As for `fetch`.
        deadline_s: For all of it.
        backend: Opens connections; only tests replace it.

    Returns:
        The HTTP status.

    Raises:
        Unavailable: The URL is not allowed, or does not answer in time.
    """
    own = {
        "accept-encoding": "identity",
        "content-length": str(len(body)),
        "user-agent": _USER_AGENT,
    }
    fields = {name.lower(): value for name, value in (headers or {}).items()} | own
    for framing in ("host", "transfer-encoding"):  # set here, whatever the caller passes
        fields.pop(framing, None)
    try:
        target = _checked(url, None, _schemes(allow_http))
        async with _reaching(target, deadline_s, backend, use_proxy) as pools:
            return (await _exchange(pools, target, method, fields, body, MAX_ANSWER_BYTES)).status
    except _Refused as refused:
        raise Unavailable(f"{refused.message}.") from None


def why_not(url: str, *, allow_http: bool = False) -> str | None:
    """Why a URL is forbidden as written, before its host is looked up, or None."""
    try:
        _checked(url, None, _schemes(allow_http))
    except _Refused as refused:
        return refused.message
    return None


class _Refused(Exception):
    """A URL cannot be used; the public functions turn this into their own errors."""

    def __init__(self, url: URL | None, message: str, allowed: str = "") -> None:
        self.message = f"{_shown(url)} {message}" if url else message
        self.allowed = allowed
        super().__init__(self.message)


@dataclass(frozen=True)
class _Answer:
    status: int
    location: str | None
    body: bytes


class _Pools:
    """Connections for one exchange: straight to a checked address, or through a proxy."""

    def __init__(
        self,
        stack: AsyncExitStack,
        backend: httpcore2.AsyncNetworkBackend | None,
        use_proxy: bool,
    ) -> None:
        self._stack, self._use_proxy = stack, use_proxy
        self._backend = backend or PinnedBackend()

    async def to(self, url: URL) -> httpcore2.AsyncConnectionPool:
        """The pool of connections for a URL.

        Raises:
            Blocked: Its host is known here and not public.
        """
        named = proxy_for(str(url)) if self._use_proxy else None
        proxy, backend = None, self._backend
        if named is not None:
            with suppress(OSError):  # only the proxy knows the name
                addresses = await system_lookup(url.host, url.port or _PORTS[url.scheme])
                if not all(map(is_public, addresses)):
                    raise Blocked
            parsed = Proxy(named)
            at = parsed.url
            proxy = httpcore2.Proxy(
                httpcore2.URL(scheme=at.raw_scheme, host=at.raw_host, port=at.port, target=b"/"),
                auth=parsed.raw_auth,
            )
            backend = httpcore2.AnyIOBackend()
        pool = httpcore2.AsyncConnectionPool(
            network_backend=backend, proxy=proxy, max_keepalive_connections=0
        )
        return await self._stack.enter_async_context(pool)


@asynccontextmanager
async def _reaching(
    url: URL, deadline_s: float, backend: httpcore2.AsyncNetworkBackend | None, use_proxy: bool
) -> AsyncIterator[_Pools]:
    """Connections for one exchange; a timeout becomes `_Refused`."""
    try:
        async with asyncio.timeout(deadline_s), AsyncExitStack() as stack:
            yield _Pools(stack, backend, use_proxy)
    except TimeoutError:
        raise _Refused(url, f"did not finish within {deadline_s:g} s") from None


async def _exchange(
    pools: _Pools,
    url: URL,
    method: str,
    headers: Mapping[str, str],
    content: bytes,
    max_bytes: int,
) -> _Answer:
    """One request and its response, without following redirects."""
    where = httpcore2.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )
    fields = [(b"host", url.netloc), *((k.encode(), v.encode()) for k, v in headers.items())]
    options = {"timeout": {"connect": CONNECT_TIMEOUT_S}}
    try:
        pool = await pools.to(url)
        async with pool.stream(
            method, where, headers=fields, content=content, extensions=options
        ) as response:
            answered = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            location = answered.get(b"location") if response.status in _REDIRECTS else None
            if response.status != 200:
                return _Answer(response.status, location, b"")
            if compression := _compression(response.headers):
                raise _Refused(url, f"answers compressed ({compression})")
            body = await _read(response, url, int(answered.get(b"content-length", 0)), max_bytes)
            return _Answer(200, None, body)
    except Blocked:
        raise _Refused(url, "is not on the public internet") from None
    except TimeoutError:
        raise  # an OSError, but it means the deadline
    except (
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
        httpcore2.ProxyError,
        httpcore2.TimeoutException,
        OSError,
        UnicodeError,
    ) as error:
        reason = str(error) or type(error).__name__
        raise _Refused(url, f"cannot be reached ({reason})") from None


async def _read(response: httpcore2.Response, url: URL, announced: int, max_bytes: int) -> bytes:
    too_much = f"has more than {max_bytes / 2**20:g} MiB"
    if announced > max_bytes:
        raise _Refused(url, too_much)
    body = bytearray()
    async for chunk in response.aiter_stream():
        body += chunk
        if len(body) > max_bytes:
            raise _Refused(url, too_much)
    return bytes(body)


def _compression(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The compression of the body, if it is a known kind."""
    values = [
        value.decode("latin-1") for name, value in headers if name.lower() == b"content-encoding"
    ]
    encodings = [one.strip().lower() for one in ",".join(values).split(",")]
    return next((one for one in encodings if one in _COMPRESSIONS), None)


def _schemes(allow_http: bool) -> Sequence[str]:
    return ("https", "http") if allow_http else ("https",)


def _checked(text: str, base: URL | None, schemes: Sequence[str]) -> URL:
    try:
        url = base.join(text) if base else URL(text)
    except (InvalidURL, UnicodeError) as error:
        raise _Refused(None, f"the URL cannot be read: {error}") from None
    if url.scheme not in schemes:
        allowed = " or ".join(f"{scheme}://" for scheme in schemes)
        raise _Refused(url, f"is a {url.scheme or 'relative'} URL", allowed)
    if url.userinfo:
        raise _Refused(url, "carries a user name or password")
    if not url.host:
        raise _Refused(url, "names no host")
    if url.port not in (None, _PORTS[url.scheme]):
        raise _Refused(url, f"names port {url.port}", f"port {_PORTS[url.scheme]}")
    return url


def _shown(url: URL) -> str:
    """The URL without the parts that may be secret: user, query and fragment."""
    return shorten(f"{url.scheme}://{url.host}{url.path}", 100)
