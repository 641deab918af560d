"""What one caller, and all of them together, may ask of the server; more is told to wait.

Both stand before anything is read, so an overload costs neither memory nor the ledger's time.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Final

from castmate.errors import Overloaded
from castmate.jobs.keys import Key

BURST_S: Final = 10.0  # of a key's rate may come at once
MAX_REQUESTS: Final = 1024
MAX_BODY_BYTES: Final = 256 * 2**20
_SHED_RETRY_S: Final = 1.0
_KEYS_REMEMBERED: Final = 10_000


class RateLimiter:
    """Requests of each key, evenly over the minute (GCRA): one number a key.

    It is this process's own: a key may use each replica so often.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}

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


class Gate:
    """How many requests are inside at a time, and how many bytes are held for them."""

    def __init__(
        self, max_requests: int = MAX_REQUESTS, max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        self._max_requests, self._max_body_bytes = max_requests, max_body_bytes
        self._requests = self._body_bytes = 0

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let a request in until it is answered.

        Raises:
            Overloaded: There are too many.
        """
        if self._requests >= self._max_requests:
            raise _full()
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    @contextlib.contextmanager
    def holding(self, num_bytes: int) -> Iterator[None]:
        """Hold so much for a request, of what it sends or gets.

        Raises:
            Overloaded: There is no room for it.
        """
        if self._body_bytes + num_bytes > self._max_body_bytes:
            raise _full()
        self._body_bytes += num_bytes
        try:
            yield
        finally:
            self._body_bytes -= num_bytes


def _full() -> Overloaded:
    return Overloaded(
        "The server has as many requests in hand as it can hold; nothing was charged. Try again in "
        f"{_SHED_RETRY_S:.0f} s.",
        retry_after_s=_SHED_RETRY_S,
    )
