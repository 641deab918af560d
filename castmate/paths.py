"""Finds files by the names that people type, which are not always the bytes on disk."""

from __future__ import annotations

import difflib
import itertools
import os
import unicodedata
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator

_PICTURES: Final = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".heic", ".heif"))
_LOOKED_AT: Final = 2000
_NAMED: Final = 10


def expand(path: Path) -> Path:
    """A path with `~` expanded; unchanged if that user does not exist."""
    return Path(os.path.expanduser(path))


UserPath = Annotated[Path, AfterValidator(expand)]


def as_spelled(path: Path) -> Path:
    """The path of an existing file whose name is spelled differently, else `path` itself.

    Some systems write accents as two characters, and macOS puts a narrow space into the names of
    its screenshots; people and models reproduce neither.

    Raises:
        OSError: A folder on the way cannot be read.
    """
    if os.path.lexists(path) or "\0" in str(path):
        return path
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        if part == ".." or os.path.lexists(found / part):
            found /= part
            continue
        plain = _plain(part)
        if not found.is_dir():
            return path
        names = (name for name in os.listdir(found) if _plain(name) == plain)
        if (name := next(names, None)) is None:
            return path
        found /= name
    return found


def nearest(folder: Path, name: str) -> list[str]:
    """Names of pictures in a folder, the most similar first.

    Raises:
        OSError: The folder cannot be read.
    """
    if not folder.is_dir():
        return []
    entries = itertools.islice(folder.iterdir(), _LOOKED_AT)
    names = sorted(entry.name for entry in entries if entry.suffix.lower() in _PICTURES)
    plain = _plain(name).lower()
    likeness = {
        one: difflib.SequenceMatcher(None, _plain(one).lower(), plain).ratio() for one in names
    }
    return sorted(names, key=lambda one: -likeness[one])[:_NAMED]


def _plain(name: str) -> str:
    """A name with composed accents and plain spaces."""
    composed = unicodedata.normalize("NFC", name)
    return "".join(" " if unicodedata.category(one) == "Zs" else one for one in composed)
