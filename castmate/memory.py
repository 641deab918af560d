"""Room for decoded pictures: a limit in bytes, shared by the whole process."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections import deque
from collections.abc import Iterator

from castmate.errors import Overloaded


class ByteGate:
    """Admits work while its bytes fit, in order of arrival.

    Work that is larger than the whole gate is admitted alone.
    """

    def __init__(self, limit: int, patience_s: float) -> None:
        """Open a gate.

        Args:
            limit: Bytes that may be held together.
            patience_s: How long to wait for room before failing.
        """
        self._limit, self._patience_s = limit, patience_s
        self._held = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, num_bytes: int) -> Iterator[None]:
        """Wait for room, and hold it.

        Raises:
            Overloaded: There was none in time.
        """
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                if not self._changed.wait_for(
                    lambda: self._fits(turn, num_bytes), self._patience_s
                ):
                    raise Overloaded(
                        "Too many large pictures are being read. Try again in a few seconds.",
                        retry_after_s=5,
                    )
                self._held += num_bytes
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._held -= num_bytes
                self._changed.notify_all()

    def _fits(self, turn: object, num_bytes: int) -> bool:
        room = self._held == 0 or self._held + num_bytes <= self._limit
        return room and self._waiting[0] is turn


def give_back() -> None:
    """Return freed memory to the system, if the C library keeps it for itself (glibc)."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # musl has no such call
            ctypes.CDLL(None).malloc_trim(0)
