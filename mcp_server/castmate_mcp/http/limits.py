"""What one caller, and all of them together, may ask of the server; whoever asks for more waits.

Everything here is checked before anything is read, so an overload costs neither memory nor the
ledger's time. Of whatever is bounded, a key gets a quarter at most, so whatever one caller does,
others get in at once. Without keys there is one caller, this machine, and it may take all.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

from castmate.errors import Overloaded, Unavailable
from castmate.jobs.keys import LOCAL, Key, share_of

BURST_S: Final = 10.0  # of a key's rate may come at once
MAX_REQUESTS: Final = 1024
MAX_BODY_BYTES: Final = 256 * 2**20
MAX_STREAMS: Final = 1024  # that stay open for what the server has to say
MAX_SESSIONS: Final = 1024  # of MCP's older era, which end after half an hour without a request
MAX_FETCHES: Final = 64  # of pictures at addresses that callers name
SHARE_S: Final = 1.0
_SHED_RETRY_S: Final = 1.0
_KEYS_REMEMBERED: Final = 10_000

Count = Callable[[Mapping[str, float]], Awaitable[Mapping[str, float]]]
"""Takes seconds used, by key, and gives how many seconds each key is ahead of its rate."""


class RateLimiter:
    """Requests of each key, evenly over the minute (GCRA): one number a key.

    It decides by itself, without a look at the ledger. `share` tells the other servers what was
    used here and learns what was used there, so over any time a key asks as often as its rate says,
    and at most a burst more at each server that has not heard of the others yet.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}
        self._unshared: defaultdict[str, float] = defaultdict(float)  # seconds of each key's rate

    def take(self, key: Key, cost: float = 1.0) -> None:
        """Count a request; one that costs more than a burst is let in, and paid off after it.

        Raises:
            Overloaded: The key has asked too often.
        """
        if key.per_minute is None:
            return
        every_s = 60.0 / key.per_minute
        now, burst_s = self._clock(), max(BURST_S, every_s)
        begin = max(self._due.get(key.name, now), now)
        if (wait_s := begin + every_s - now - burst_s) > 0 and cost > 0:
            raise Overloaded(
                f"Key {key.name!r} may ask {key.per_minute} times a minute, and has; nothing was "
                f"charged. Try again in {math.ceil(wait_s)} s. Looking at a prediction is free.",
                retry_after_s=wait_s,
            )
        if len(self._due) >= _KEYS_REMEMBERED:
            self._due = {name: when for name, when in self._due.items() if when > now}
        self._due[key.name] = begin + every_s * cost
        self._unshared[key.name] += every_s * cost

    async def share(self, count: Count) -> None:
        """Exchange what keys have used with the other servers; without any use nothing happens.

        Args:
            count: `KeyRing.count`.

        Raises:
            Unavailable: The ledger cannot be reached; all of it is sent the next time.
        """
        used, self._unshared = self._unshared, defaultdict(float)
        if not used:
            return
        try:
            ahead = await count(used)
        except BaseException:
            for name, seconds in used.items():
                self._unshared[name] += seconds
            raise
        now = self._clock()
        for name, ahead_s in ahead.items():
            due = now + ahead_s + self._unshared.get(name, 0.0)
            self._due[name] = max(self._due.get(name, now), due)

    async def share_always(self, count: Count) -> None:
        """Share for ever, once a second; cancel it to end."""
        while True:
            await asyncio.sleep(SHARE_S)
            with contextlib.suppress(Unavailable):
                await self.share(count)


class Bound:
    """So much of something for all callers together, and a share of it for each key."""

    def __init__(self, limit: int, what: str) -> None:
        """Nothing is held yet.

        Args:
            limit: How much there is.
            what: What a key has too much of, as an error names it.
        """
        self._limit, self._what = limit, what
        self._held = 0
        self._by_key: Counter[str] = Counter()

    @contextlib.contextmanager
    def hold(self, amount: int = 1) -> Iterator[None]:
        """Hold so much of it for somebody whose key is not known yet.

        Raises:
            Overloaded: There is not enough left.
        """
        if self._held + amount > self._limit:
            raise Overloaded(
                "The server has as many requests in hand as it can hold; nothing was charged. Try "
                f"again in {_SHED_RETRY_S:.0f} s.",
                retry_after_s=_SHED_RETRY_S,
            )
        self._held += amount
        try:
            yield
        finally:
            self._held -= amount

    @contextlib.contextmanager
    def count(self, key: Key, amount: int = 1) -> Iterator[None]:
        """Count what is held against the share of a key.

        Raises:
            Overloaded: It is more than the share.
        """
        if key.name != LOCAL.name and self._by_key[key.name] + amount > share_of(self._limit):
            raise beyond_share(key, share_of(self._limit), self._what)
        self._by_key[key.name] += amount
        try:
            yield
        finally:
            self._by_key[key.name] -= amount
            if not self._by_key[key.name]:
                del self._by_key[key.name]

    @contextlib.contextmanager
    def hold_for(self, key: Key, amount: int = 1) -> Iterator[None]:
        """Hold so much of it for a key.

        Raises:
            Overloaded: There is not enough left, or it is more than the key's share.
        """
        with self.count(key, amount), self.hold(amount):
            yield


class Gate:
    """What requests hold while they are inside.

    Attributes:
        requests: That are being answered.
        body_bytes: Held of what callers send or get.
        streams: Answers that stay open.
        fetches: Addresses that are being read.
    """

    def __init__(
        self,
        max_requests: int = MAX_REQUESTS,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_streams: int = MAX_STREAMS,
        max_fetches: int = MAX_FETCHES,
    ) -> None:
        self.requests = Bound(max_requests, "requests in hand")
        self.body_bytes = Bound(max_body_bytes, "bytes of requests and answers in hand")
        self.streams = Bound(max_streams, "streams open")
        self.fetches = Bound(max_fetches, "pictures being fetched from addresses")


def beyond_share(key: Key, share: int, what: str) -> Overloaded:
    """The refusal of what would be more than a key's share."""
    return Overloaded(
        f"Key {key.name!r} has {share} {what}, its share of this server; nothing was charged. "
        f"Try again when one of them has ended.",
        retry_after_s=_SHED_RETRY_S,
    )
