"""Logs: one JSON object a line on stderr (words at a terminal), each with its request's id.

stdout stays free: it belongs to MCP over stdio. Neither prompts nor headers, bodies, queries or
keys are ever put into a line.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Final

import structlog
from structlog.contextvars import merge_contextvars
from structlog.typing import Processor

_PERIOD_S: Final = 10.0
_IN_A_PERIOD: Final = 5  # lines of a kind
_KINDS: Final = 1000


class Thinned(logging.Filter):
    """Counts lines that are repeated instead of writing every one; the next one says how many.

    Requests are no repetition of one another: what structlog logs is left alone.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write a line."""
        if not isinstance(record.msg, str):
            return True
        kind, now = (record.name, record.msg[:100]), self._clock()
        since, count = self._seen.get(kind, (now, 0))
        if now - since >= _PERIOD_S:
            if (left_out := count - _IN_A_PERIOD) > 0:
                record.msg = f"{record.getMessage()} ({left_out} more like it were left out)"
                record.args = ()
            since, count = now, 0
        if len(self._seen) >= _KINDS:
            self._seen.clear()
        self._seen[kind] = since, count + 1
        return count < _IN_A_PERIOD


def set_up(level: str = "INFO") -> None:
    """Send what structlog and the standard library log to stderr, in one form."""
    shared: list[Processor] = [
        merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper("iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        foreign_pre_chain=shared,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(Thinned())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
