"""A circuit breaker: rejects calls for a while after too many failures, then lets one try."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

WINDOW: Final = 20
MINIMUM: Final = 5
BAD_SHARE: Final = 0.5


class BreakerState(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"  # every call
    OPEN = "open"  # none
    HALF_OPEN = "half-open"  # one, which decides


@dataclass(frozen=True)
class Admission:
    """Permission for one call, returned to `record` with the call's outcome.

    Attributes:
        generation: How often the state had changed when the call was admitted. If it has changed
            again by the end of the call, the outcome says nothing about the new state.
    """

    generation: int


class Breaker:
    """Opens when half of the last calls were bad; for one event loop, so it has no lock."""

    def __init__(
        self,
        *,
        cooldown_s: float,
        slow_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start closed.

        Args:
            cooldown_s: How long it stays open before a call may try again.
            slow_s: A good call that took longer counts as a bad one.
            clock: Seconds; only tests replace it.
        """
        self._cooldown_s, self._slow_s, self._clock = cooldown_s, slow_s, clock
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._generation = 0
        self._open = self._probing = False
        self._retry_at = -math.inf

    @property
    def state(self) -> BreakerState:
        """The state that the next call finds."""
        if not self._open:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self.retry_in_s == 0 else BreakerState.OPEN

    @property
    def retry_in_s(self) -> float:
        """How long past failures keep calls out; 0 if a call may go through now."""
        return max(self._retry_at - self._clock(), 0.0) if self._open else 0.0

    @property
    def ready_in_s(self) -> float:
        """Seconds until a call may go through; infinite while the probing call is running."""
        return math.inf if self._probing else self.retry_in_s

    def admit(self) -> Admission | None:
        """Permission for one call, or None: go elsewhere. Half-open, it admits one at a time."""
        if self._open:
            if self._probing or self.retry_in_s > 0:
                return None
            self._probing = True
            self._generation += 1
        return Admission(self._generation)

    def record(self, admission: Admission, good: bool | None, seconds: float) -> None:
        """Record how an admitted call ended; required for every call, even a cancelled one.

        Args:
            admission: What `admit` gave.
            good: Whether the call succeeded, or None if its outcome says nothing about the other
                side: a cancelled call, a bad request.
            seconds: How long it took.
        """
        if admission.generation != self._generation:
            return
        if good and seconds > self._slow_s:
            good = False
        if self._probing:
            self._probing = False  # still half-open, unless the probe was conclusive
            if good is not None:
                self._switch(opened=not good)
        elif good is not None:
            self._recent.append(good)
            bad = self._recent.count(False)
            if len(self._recent) >= MINIMUM and bad >= BAD_SHARE * len(self._recent):
                self._switch(opened=True)

    def _switch(self, *, opened: bool) -> None:
        self._generation += 1
        self._open = opened
        self._recent.clear()
        self._retry_at = self._clock() + self._cooldown_s
