"""Sync submissions whose callers hung up: the same one again is that one, for a minute.

There are clients that give up after ten seconds and submit again, up to five times. Two callers
that wait side by side are two submissions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

_ABANDONED_S: Final = 60.0
_ABANDONED_REMEMBERED: Final = 1000

Same = tuple[str, str, bool]
"""What makes two submissions the same one: key, hash of the request, form of the answer."""


@dataclass
class Abandoned:
    """Those of one process.

    Attributes:
        found: The prediction's id, and until when.
    """

    found: dict[Same, tuple[str, float]] = field(default_factory=dict)

    def add(self, same: Same, prediction_id: str) -> None:
        """Remember one."""
        now = time.monotonic()
        if len(self.found) >= _ABANDONED_REMEMBERED:
            self.found = {one: kept for one, kept in self.found.items() if kept[1] > now}
        self.found[same] = (prediction_id, now + _ABANDONED_S)

    def pop(self, same: Same) -> str | None:
        """The prediction of an abandoned submission like this one; the next one is new."""
        prediction_id, until = self.found.pop(same, (None, 0.0))
        return prediction_id if time.monotonic() < until else None
