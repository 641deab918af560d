"""Characters by what their owner calls them: any case, and however accents are written."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from castmate.errors import ImageRejected
from castmate.jobs.characters import MAX_NAME, Character
from castmate.shorten import shorten
from castmate.times import day_of

_NUMBERED: Final = re.compile(r"(.+)/([1-9])")
_SHOWN: Final = 5


def named(found: Sequence[Character], text: str) -> tuple[Character, int | None] | None:
    """The character of a name, and which of its pictures is meant, from 1; None where none is.

    Without a number all of its pictures are.

    Args:
        found: All of one owner.
        text: Its name, perhaps with the number of a picture behind it, such as Mira/2.

    Raises:
        ImageRejected: Several have this name.
    """
    if (exact := _only(found, text)) is not None:
        return exact, None
    if match := _NUMBERED.fullmatch(text.strip()):
        character = _only(found, match[1])
        return None if character is None else (character, int(match[2]))
    return None


def identified(found: Sequence[Character], text: str) -> tuple[Character, int | None] | None:
    """The character of an id, and which of its pictures is meant, as `named`; None where none is.

    Args:
        found: All of one owner.
        text: Its id or URI, perhaps with the number of a picture behind it, such as chr_.../2.
    """
    text = text.strip().removeprefix("character://")
    by_id = {one.id: one for one in found}
    if text in by_id:
        return by_id[text], None
    match = _NUMBERED.fullmatch(text)
    return (by_id[match[1]], int(match[2])) if match and match[1] in by_id else None


def no_such_name(found: Sequence[Character], text: str, allowed: str) -> ImageRejected:
    """Nobody has this name: the nearest, and what else there is.

    Args:
        found: All of one owner.
        text: What was named.
        allowed: What else may stand in its place.
    """
    names = {folded(one.name): one.name for one in found}
    near = difflib.get_close_matches(folded(text), names, _SHOWN, 0.5)
    meant = ", ".join(f"`{names[one]}`" for one in near)
    hint = f"The nearest: {meant}." if near else ""
    if found and not near:
        hint = f"Saved: {', '.join(f'`{one.name}`' for one in found[:_SHOWN])}."
    return ImageRejected(
        f"no saved character is called {shorten(text, 60)!r}", allowed=allowed, hint=hint
    )


def could_be_name(text: str) -> bool:
    """Whether a text that is no id, address or data could be a name rather than a path."""
    text = text.strip()
    return 0 < len(text) <= MAX_NAME and not re.search(r"[/\\:.]", text)


def folded(name: str) -> str:
    """The same for all ways to write a name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def _only(found: Sequence[Character], name: str) -> Character | None:
    same = [one for one in found if folded(one.name) == folded(name)]
    if len(same) < 2:
        return same[0] if same else None
    ids = ", ".join(f"{one.id} (saved {day_of(one.created)})" for one in same[:_SHOWN])
    raise ImageRejected(
        f"{len(same)} saved characters are called {shorten(name, 60)!r}",
        allowed=ids,
        hint="Use the id of the one that is meant; the newest stands first.",
    )
