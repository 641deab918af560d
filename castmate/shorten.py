"""Shortens foreign texts for quoting in messages."""

from __future__ import annotations


def shorten(text: str, most: int) -> str:
    """The text; if it has more than `most` characters, dots replace its end."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
