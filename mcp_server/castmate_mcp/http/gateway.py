"""What every HTTP route of one server shares, and how a route gets at it."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import HTTPConnection

from castmate.jobs.storage import DAY_S
from castmate.service import Castmate
from castmate_mcp.http.abandoned import Abandoned
from castmate_mcp.http.limits import Gate, RateLimiter
from castmate_mcp.http.metrics import Metrics
from castmate_mcp.http.references import References
from castmate_mcp.settings import ServerSettings

SYNC_CAP_S: Final = 90.0
LINKED_FOR_S: Final = 7.0 * DAY_S
_HOST: Final = re.compile(r"[\w.-]+(:\d{1,5})?|\[[0-9a-fA-F:.]+\](:\d{1,5})?")


@dataclass
class Gateway:
    """One server.

    Attributes:
        castmate: What the server stands on.
        sync_cap_s: How long a submission in sync mode is held open.
        draining: Set when the server is about to end: nobody may wait for long any more.
        gate: How much may be inside at a time.
        rate: How often each key may ask.
        metrics: What is counted.
        references: What callers name as `image`.
        abandoned: Sync submissions whose callers hung up.
    """

    castmate: Castmate[ServerSettings]
    sync_cap_s: float = SYNC_CAP_S
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    gate: Gate = field(default_factory=Gate)
    rate: RateLimiter = field(default_factory=RateLimiter)
    abandoned: Abandoned = field(default_factory=Abandoned)
    metrics: Metrics = field(init=False)
    references: References = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.castmate)
        self.references = References(self.castmate, lambda: self.gate.fetches)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the one model; answers name the first."""
        return self.castmate.settings.served_models

    def base_url(self, connection: HTTPConnection) -> str:
        """Our address as the caller sees it, without a slash at the end.

        A proxy's word is taken like the Host header: both only decide what this very caller reads.
        """
        if self.castmate.settings.public_url:
            return self.castmate.settings.public_url
        headers = connection.headers
        forwarded = headers.get("x-forwarded-host", "").split(",")[0].strip()
        host = forwarded if _HOST.fullmatch(forwarded) else headers.get("host", "")
        proto = headers.get("x-forwarded-proto", "").split(",")[0].strip()
        scheme = proto if proto in ("http", "https") else connection.url.scheme
        if not _HOST.fullmatch(host):
            settings = self.castmate.settings
            host = f"{settings.host}:{settings.port}"
        return f"{scheme}://{host}"

    def file_url(self, base_url: str, name: str) -> str:
        """An address of a stored file that works without a key for a week.

        It is the same all day long, so that whoever asks again finds it in a cache.
        """
        midnight = time.time() // DAY_S * DAY_S
        return base_url + self.castmate.storage.link(name, midnight, LINKED_FOR_S + DAY_S)


def gateway(connection: HTTPConnection) -> Gateway:
    """The server that a request reached."""
    found = connection.app.state.gateway
    assert isinstance(found, Gateway)
    return found
