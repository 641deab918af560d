"""Several servers of the same model: which one next, and which one not for now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from castmate.errors import Unavailable

FIRST_EJECTION_S: Final = 1.0
LONGEST_EJECTION_S: Final = 30.0


@dataclass(eq=False)
class Endpoint:
    """One server.

    Attributes:
        url: host:port.
        outstanding: Our requests that it is busy with.
        failures: In a row; each one doubles the time without requests.
        ejected_until: On the monotonic clock; 0 while it gets requests.
        last_used: The turn in which it was chosen last.
        reason: Why it was ejected.
    """

    url: str
    outstanding: int = 0
    failures: int = 0
    ejected_until: float = 0.0
    last_used: int = 0
    reason: str = ""
    probing: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def is_ejected(self) -> bool:
        """Whether it must answer a probe before it gets a request."""
        return self.failures > 0


class Endpoints:
    """Chooses the server with the fewest outstanding requests; a failed one rests.

    A server that failed gets no request until it has answered a probe. While another one works,
    the probe runs beside the requests; when none works, the next request waits for it.
    """

    def __init__(self, urls: Sequence[str], probe: Callable[[str], Awaitable[object]]) -> None:
        """Know the servers; nothing is sent yet.

        Args:
            urls: At least one.
            probe: Returns when the server of a URL can draw, else raises `Unavailable`.
        """
        self._all = [Endpoint(url) for url in dict.fromkeys(urls)]
        self._probe = probe
        self._turn = 0

    async def choose(self, tried: Sequence[Endpoint]) -> Endpoint | None:
        """The best endpoint outside `tried`; None when there is none that works."""
        left = [endpoint for endpoint in self._all if endpoint not in tried]
        if all(endpoint.is_ejected for endpoint in left):
            waiting = {self._start_probe(endpoint) for endpoint in left}
            while waiting and all(endpoint.is_ejected for endpoint in left):
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        else:
            for endpoint in left:
                if endpoint.is_ejected and time.monotonic() >= endpoint.ejected_until:
                    self._start_probe(endpoint)
        working = [endpoint for endpoint in left if not endpoint.is_ejected]
        if not working:
            return None
        self._turn += 1
        chosen = min(working, key=lambda endpoint: (endpoint.outstanding, endpoint.last_used))
        chosen.last_used = self._turn
        return chosen

    @contextmanager
    def using(self, endpoint: Endpoint) -> Iterator[None]:
        """Count a request as outstanding."""
        endpoint.outstanding += 1
        try:
            yield
        finally:
            endpoint.outstanding -= 1

    def failed(self, endpoint: Endpoint, reason: str) -> None:
        """Give it a rest."""
        endpoint.failures += 1
        rest_s = min(FIRST_EJECTION_S * 2 ** (endpoint.failures - 1), LONGEST_EJECTION_S)
        endpoint.ejected_until = time.monotonic() + rest_s
        endpoint.reason = reason

    def worked(self, endpoint: Endpoint) -> None:
        """Forget its failures."""
        endpoint.failures, endpoint.ejected_until, endpoint.reason = 0, 0.0, ""

    def reasons(self) -> list[str]:
        """Why each ejected server is."""
        return [endpoint.reason for endpoint in self._all if endpoint.is_ejected]

    async def aclose(self) -> None:
        """End the probes."""
        probes = [endpoint.probing for endpoint in self._all if endpoint.probing]
        for task in probes:
            task.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    def _start_probe(self, endpoint: Endpoint) -> asyncio.Task[None]:
        """The probe that runs already, or a new one: many requests ask once."""
        if endpoint.probing is None or endpoint.probing.done():
            endpoint.probing = asyncio.create_task(self._ask(endpoint))
        return endpoint.probing

    async def _ask(self, endpoint: Endpoint) -> None:
        try:
            await self._probe(endpoint.url)
        except Unavailable as error:
            self.failed(endpoint, str(error))
        else:
            self.worked(endpoint)
