"""Limits submissions a minute, first come, first served, within this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from castmate.errors import Overloaded

MINUTE_S = 60.0


class RateLimit:
    """Gives turns, each at least a minute after the one `per_minute` turns before it."""

    def __init__(
        self,
        per_minute: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Start with all turns free.

        Args:
            per_minute: Turns a minute.
            clock: Seconds; only tests replace it.
            sleep: Waits; only tests replace it.
        """
        self._per_minute, self._clock, self._sleep = per_minute, clock, sleep
        self._turns: list[float] = []  # of the last minute, and reserved ones
        self._closed_until = 0.0

    async def turn(self, patience_s: float) -> None:
        """Wait for the next turn; a cancelled caller gives its turn back.

        Raises:
            Overloaded: It comes later than `patience_s` from now.
        """
        now = self._clock()
        self._turns = [turn for turn in self._turns if turn > now - MINUTE_S]
        at = max(now, self._closed_until, *self._turns[-1:])
        if len(self._turns) >= self._per_minute:
            at = max(at, self._turns[-self._per_minute] + MINUTE_S)
        if at - now > patience_s:
            raise Overloaded(
                f"The WaveSpeed account may make {self._per_minute} a minute, and the next turn is "
                f"{at - now:.0f} s away. Nothing was sent for this picture. Try again then, or "
                "raise the account's tier and CASTMATE_WAVESPEED_PER_MINUTE.",
                retry_after_s=at - now,
            )
        self._turns.append(at)
        if at > now:
            try:
                await self._sleep(at - now)
            except asyncio.CancelledError:
                self._turns.remove(at)
                raise

    def pause(self, seconds: float) -> None:
        """Give no turn for a while, after WaveSpeed reported too many requests."""
        self._closed_until = max(self._closed_until, self._clock() + seconds)
