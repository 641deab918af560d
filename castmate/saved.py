"""Saves a character, and finds what `--image` names: a saved one, a path, a URL or stdin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from castmate.errors import ImageRejected
from castmate.images import Reference
from castmate.jobs.characters import PREFIX, Character, one_line
from castmate.jobs.keys import LOCAL_KEY
from castmate.jobs.names import could_be_name, identified, named, no_such_name
from castmate.references import is_base64, resolve
from castmate.service import Castmate
from castmate.several import MAX_TOGETHER, together
from castmate.streams import is_stream

ALLOWED = "a path, an https URL, a data URI, or a saved character's name or id"


async def reference_of(castmate: Castmate[Any], source: str) -> Reference:
    """Read and check the named picture, or the pictures of the named character.

    A file wins over a character of the same name; an id is always a character's.

    Args:
        castmate: Has the local library.
        source: As for `castmate.references.resolve`; or the name or id of a character, followed by
            /2 for its second picture alone.

    Raises:
        ImageRejected: Says why, and what is allowed or similar.
        Unavailable: The ledger or the storage cannot be reached.
    """
    text = source.strip()
    is_id = text.startswith((PREFIX, f"character://{PREFIX}"))
    if is_id or (not is_stream(source) and not is_base64(source) and not _is_there(source)):
        saved = await castmate.characters.list(LOCAL_KEY)
        if found := identified(saved, text) or named(saved, text):
            return await _pictures_of(castmate, *found)
        if is_id or could_be_name(text):
            raise no_such_name(saved, text, ALLOWED)
    settings = castmate.settings
    return await resolve(source, allow_http=settings.allow_http, use_proxy=settings.fetch_proxy)


async def save(castmate: Castmate[Any], name: str, sources: Sequence[str]) -> Character:
    """Save a character in the local library; the same name and pictures give the same one.

    Args:
        castmate: Whose library it is.
        name: What it is called.
        sources: Its pictures, each as `reference_of` takes it, the best first.

    Raises:
        InvalidRequest: The name or a picture cannot be saved.
        Unavailable: The ledger or the storage cannot be reached.
    """
    called = one_line(name)

    async def references() -> AsyncIterator[Reference]:
        for source in sources:
            yield await reference_of(castmate, source)

    return await castmate.characters.create(called, references(), key_name=LOCAL_KEY)


async def _pictures_of(
    castmate: Castmate[Any], character: Character, number: int | None
) -> Reference:
    names: Sequence[str] = character.pictures[:MAX_TOGETHER]
    if number is not None:
        if number > len(character.pictures):
            raise ImageRejected(
                f"{character.name} has {len(character.pictures)} pictures, and no {number}",
                allowed=f"{character.id}, or {character.id}/1 to /{len(character.pictures)}",
            )
        names = [character.pictures[number - 1]]
    return together(
        [await Reference.read(await castmate.storage.get(one), character.name) for one in names]
    )


def _is_there(source: str) -> bool:
    try:
        return Path(source).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long for a name, no such user, NUL
        return False
