"""Texts of others, as short as our own sentences about them need."""

from __future__ import annotations


def shorten(text: str, most: int) -> str:
    """The text, with its end replaced by dots where it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
