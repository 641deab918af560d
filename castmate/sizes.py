"""Sizes of pictures: their notation and allowed range."""

from __future__ import annotations

import re

MIN_SIDE, MAX_SIDE = 512, 1536
SIZE_RULE = f"'W*H' in pixels, whole numbers, each {MIN_SIDE}..{MAX_SIDE}, such as 1024*1024"


def parse_size(value: object) -> object:
    """A size in the form that requests use.

    Raises:
        ValueError: It is not a size, or out of range.
    """
    if not isinstance(value, str) or not (
        match := re.fullmatch(r"\s*(\d{1,5})\s*[*xX\u00d7]\s*(\d{1,5})\s*", value)
    ):
        raise ValueError(f"{value!r} is not a size")
    width, height = map(int, match.groups())
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in (width, height)):
        raise ValueError(f"{value!r} is out of range")
    return f"{width}*{height}"
