"""Chooses among several servers of the same model, and rests those that fail."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from castmate.clients.base import Servers
from castmate.errors import Unavailable

SURVEY_S: Final = 0.25
SURVEYED: Final = 4  # servers, at most
FIRST_EJECTION_S: Final = 1.0
LONGEST_EJECTION_S: Final = 30.0


@dataclass(eq=False)
class Endpoint:
    """One server.

    Attributes:
        url: host:port.
        outstanding: This process's requests that it has not finished.
        load: Requests, of any caller, that it had when it was last asked.
        failures: In a row; each one doubles the time without requests.
        ejected_until: On the monotonic clock; 0 while it gets requests.
        last_used: The turn in which it was last chosen.
        reason: Why it was ejected.
    """

    url: str
    outstanding: int = 0
    load: int = 0
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
    """Chooses the least busy server; a failed one rests.

    Other gateways send requests to the same servers, so a choice between several asks them how many
    they have. In a large fleet it asks a few at random, which balances nearly as well as asking all
    (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

    A server that failed gets no request until it has answered a probe. While another server works,
    the probe runs in the background; if none works, the next request waits for it.
    """

    def __init__(
        self,
        urls: Sequence[str],
        probe: Callable[[str], Awaitable[int]],
        *,
        survey_s: float = SURVEY_S,
    ) -> None:
        """Store the servers without sending anything.

        Args:
            urls: The servers' addresses.
            probe: Returns how many requests, of any caller, the server of a URL has; raises
                `Unavailable` if it cannot draw.
            survey_s: How long a choice waits for several servers to say how busy they are.
        """
        self._all = {url: Endpoint(url) for url in urls}
        self._probe, self._survey_s = probe, survey_s
        self._turn = 0

    def update(self, urls: Sequence[str]) -> list[str]:
        """Replace the servers with these.

        A removed server finishes what it is drawing and gets nothing new.

        Returns:
            The removed servers.
        """
        gone = [url for url in self._all if url not in urls]
        self._all = {url: self._all.get(url) or Endpoint(url) for url in urls}
        return gone

    async def choose(self, tried: Sequence[Endpoint]) -> Endpoint | None:
        """The least busy endpoint outside `tried`; None if none works."""
        chosen = None
        while chosen is None:
            if not (working := await self._working(tried)):
                return None
            chosen = working[0] if len(working) == 1 else await self._least_busy(working)
        self._turn += 1
        chosen.last_used = self._turn
        return chosen

    async def _working(self, tried: Sequence[Endpoint]) -> list[Endpoint]:
        left = [endpoint for endpoint in self._all.values() if endpoint not in tried]
        if all(endpoint.is_ejected for endpoint in left):
            waiting = {self._start_probe(endpoint) for endpoint in left}
            while waiting and all(endpoint.is_ejected for endpoint in left):
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        else:
            for endpoint in left:
                if endpoint.is_ejected and time.monotonic() >= endpoint.ejected_until:
                    self._start_probe(endpoint)
        return [endpoint for endpoint in left if not endpoint.is_ejected]

    async def _least_busy(self, working: Sequence[Endpoint]) -> Endpoint | None:
        """The least busy of those that answer in time; None if all that were asked have failed."""
        some = random.sample(working, min(len(working), SURVEYED))
        probes = {self._start_probe(endpoint): endpoint for endpoint in some}
        answered, _ = await asyncio.wait(probes, timeout=self._survey_s)
        # A server that is too slow is not chosen now; its probe goes on, and may yet rest it.
        prompt = [probes[probe] for probe in answered if not probes[probe].is_ejected]
        left = prompt or [endpoint for endpoint in some if not endpoint.is_ejected]
        return min(left, key=_busyness, default=None)

    @contextmanager
    def using(self, endpoint: Endpoint) -> Iterator[None]:
        """Count a request as outstanding."""
        endpoint.outstanding += 1
        try:
            yield
        finally:
            endpoint.outstanding -= 1

    def failed(self, endpoint: Endpoint, reason: str) -> None:
        """Rest a server that failed."""
        endpoint.failures += 1
        rest_s = min(FIRST_EJECTION_S * 2 ** (endpoint.failures - 1), LONGEST_EJECTION_S)
        endpoint.ejected_until = time.monotonic() + rest_s
        endpoint.reason = reason

    def worked(self, endpoint: Endpoint) -> None:
        """Clear its failures."""
        endpoint.failures, endpoint.ejected_until, endpoint.reason = 0, 0.0, ""

    def count(self) -> Servers:
        """How many servers there are, and how busy they are."""
        usable = [endpoint for endpoint in self._all.values() if not endpoint.is_ejected]
        ahead = sum(max(endpoint.load, endpoint.outstanding) for endpoint in usable)
        return Servers(len(usable), len(self._all) - len(usable), ahead)

    def reasons(self) -> list[str]:
        """Why each ejected server was ejected."""
        return [endpoint.reason for endpoint in self._all.values() if endpoint.is_ejected]

    async def aclose(self) -> None:
        """End the probes."""
        probes = [endpoint.probing for endpoint in self._all.values() if endpoint.probing]
        for task in probes:
            task.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    def _start_probe(self, endpoint: Endpoint) -> asyncio.Task[None]:
        """The running probe, or a new one: many requests share one probe."""
        if endpoint.probing is None or endpoint.probing.done():
            endpoint.probing = asyncio.create_task(self._ask(endpoint))
        return endpoint.probing

    async def _ask(self, endpoint: Endpoint) -> None:
        try:
            endpoint.load = await self._probe(endpoint.url)
        except Unavailable as error:
            self.failed(endpoint, str(error))
        else:
            self.worked(endpoint)


def _busyness(endpoint: Endpoint) -> tuple[int, int]:
    # Requests just sent may not have arrived when it was asked.
    return max(endpoint.load, endpoint.outstanding), endpoint.last_used
