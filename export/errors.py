"""What a build step cannot do, said in one sentence with the way out."""

from __future__ import annotations

from collections.abc import Sequence


class ExportError(Exception):
    """A step cannot go on; nothing half-written is left where it would be loaded."""


class MissingTool(ExportError):
    """A program or library that the step needs is not installed; says how to get it."""


class NotEnough(ExportError):
    """Memory or disk would not suffice; says how much is needed and how much there is."""


class SilentFallback(ExportError):
    """The builder made something slower than what was asked for, without an error of its own."""


def listed(items: Sequence[str], most: int = 20, separator: str = "\n  ") -> str:
    """The first of many things that are wrong, and how many more there are."""
    rest = len(items) - most
    return separator.join([*items[:most], *([f"and {rest} more"] if rest > 0 else [])])
