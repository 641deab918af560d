"""Times the stages of a request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Milliseconds a stage, summed over a request."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._totals_s: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block as part of `stage`."""
        start = time.perf_counter()
        yield
        self._totals_s[stage] = self._totals_s.get(stage, 0.0) + time.perf_counter() - start

    def totals_ms(self) -> dict[str, float]:
        """Every stage so far, in order, and the `total` since the start."""
        totals_s = self._totals_s | {"total": time.perf_counter() - self._start}
        return {stage: round(1000 * seconds, 3) for stage, seconds in totals_s.items()}
