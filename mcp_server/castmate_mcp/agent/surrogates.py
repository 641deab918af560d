r"""Halves of a character: JSON can write one alone (`\ud83d`), and no text can hold it.

Models write them when an emoji is cut in two. The SDK then answers nothing over stdio, a parse
error over HTTP, or crashes when it writes the text into an answer. So a half is first replaced by a
noncharacter, which is read like any text, and refused where the name of its parameter is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from castmate.errors import Problem

_MARK: Final = "\ufdd0"  # never a character, and as long in JSON as what it replaces
_ESCAPED_MARK: Final = rb"\ufdd0"
_HALF: Final = re.compile(f"[\ud800-\udfff{_MARK}]")
_ANY_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPE: Final = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB]..\\u[dD][c-fC-F]..)|(?P<half>u[dD][89a-fA-F]..)|.)", re.DOTALL
)


def mend(json: bytes) -> bytes:
    """JSON whose lone halves of characters are marked; as long as before."""
    if _ANY_HALF.search(json) is None:
        return json
    return _ESCAPE.sub(lambda found: _ESCAPED_MARK if found["half"] else found[0], json)


def problems(arguments: Mapping[str, Any]) -> list[Problem]:
    """One for each argument that holds half of a character."""
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
    """The text with every half written as an escape."""
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
