r"""Lone surrogates: JSON can write half of a character (`\ud83d`), but no text can hold it.

Models write them when an emoji is cut in two. The SDK then answers nothing over stdio, a parse
error over HTTP, or crashes when it writes the text into an answer. So each lone surrogate is first
replaced by a noncharacter, which reads like any text, and rejected once its parameter is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from castmate.errors import Problem

_MARK: Final = "\ufdd0"  # never a character, and of the same length in JSON
_ESCAPED_MARK: Final = rb"\ufdd0"
_HALF: Final = re.compile(f"[\ud800-\udfff{_MARK}]")
_ANY_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPE: Final = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB]..\\u[dD][c-fC-F]..)|(?P<half>u[dD][89a-fA-F]..)|.)", re.DOTALL
)


def mend(json: bytes) -> bytes:
    """JSON with every lone surrogate marked; its length does not change."""
    if _ANY_HALF.search(json) is None:
        return json
    return _ESCAPE.sub(lambda found: _ESCAPED_MARK if found["half"] else found[0], json)


def problems(arguments: Mapping[str, Any]) -> list[Problem]:
    """One problem for each argument that holds a lone surrogate."""
    return [
        Problem(
            shown(name),
            "holds half of a character (a lone surrogate)",
            "text that is valid Unicode",
            "Write the emoji or character whole, or leave it out.",
        )
        for name, value in arguments.items()
        if any(_HALF.search(text) for text in (name, *_texts(value)))
    ]


def shown(text: str) -> str:
    """The text with every lone surrogate written as an escape."""
    return _HALF.sub(lambda half: half[0].encode("unicode_escape").decode(), text)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
