"""From what a tool call names as a picture to the picture: ids first, then URLs, data and paths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from castmate.errors import CastmateError, ImageRejected
from castmate.images import Reference
from castmate.jobs.storage import UPLOADS
from castmate.references import resolve
from castmate_mcp.agent.ids import CharacterName, ImageName, prediction_id_of
from castmate_mcp.agent.studio import Studio

_SHOWN: Final = 5
_UPLOAD: Final = re.compile(r"upload://([0-9-]{10}/[0-9a-f]{32}\.png)")


async def reference_of(studio: Studio, source: str) -> Reference:
    """Read and check the picture that a caller names.

    Args:
        studio: Knows the caller and what is theirs.
        source: An id or URI of a picture or a character, an https URL, a data URI or a path.

    Raises:
        ImageRejected: Says why, and what is allowed instead.
    """
    source = source.strip()
    if name := ImageName.parse(source) or _own_file(studio, source):
        return await _of_image(studio, name)
    if character := CharacterName.parse(source):
        return await _of_character(studio, character)
    if upload := _UPLOAD.fullmatch(source):
        return await _of_upload(studio, upload[1])
    if prediction_id_of(source):
        raise await _instead_of_job(studio, source)
    if source.startswith(("img_", "chr_", "image://", "character://")):
        raise await _unknown(studio, source)
    settings = studio.castmate.settings
    roots = settings.image_roots if studio.reads_paths else ()
    return await resolve(source, roots=roots, allow_http=settings.allow_http, caller=studio.caller)


def _own_file(studio: Studio, source: str) -> ImageName | None:
    """The picture whose `file_path` this is."""
    if not studio.reads_paths or len(source) > 4096 or "\0" in source:
        return None
    stored = studio.stored_name(Path(source.removeprefix("file://")))
    return ImageName.of_stored(stored) if stored else None


async def _of_upload(studio: Studio, name: str) -> Reference:
    try:
        data = await studio.castmate.storage.get(f"{UPLOADS}/{name}")
    except FileNotFoundError:
        raise ImageRejected(
            "nothing was sent to that upload link yet, or it was long ago",
            hint="PUT the file to its upload_url first; create_upload_link gives a new one.",
        ) from None
    return await Reference.read(data, "the upload", studio.caller)


async def _of_image(studio: Studio, name: ImageName) -> Reference:
    try:
        image = await studio.picture(name)
        data = await studio.castmate.storage.get(image.name)
    except FileNotFoundError:
        raise await _unknown(studio, str(name)) from None
    return await Reference.read(data, str(name), studio.caller)


async def _of_character(studio: Studio, name: CharacterName) -> Reference:
    character = await studio.castmate.characters.find(name.character_id, studio.caller)
    if character is None:
        raise await _unknown(studio, name.character_id)
    if name.picture > len(character.pictures):
        raise ImageRejected(
            f"{character.id} has {len(character.pictures)} pictures, and no {name.picture}",
            allowed=f"{character.id}, or {character.id}/1 to /{len(character.pictures)}",
        )
    try:
        data = await studio.castmate.storage.get(character.pictures[name.picture - 1])
    except FileNotFoundError:  # deleted meanwhile
        raise await _unknown(studio, name.character_id) from None
    return await Reference.read(data, character.id, studio.caller)


async def _instead_of_job(studio: Studio, source: str) -> ImageRejected:
    allowed = "the image_id of a finished picture"
    try:
        prediction = await studio.job(source)
    except CastmateError:
        return ImageRejected(f"{source[:60]} is the id of a job, not of a picture", allowed=allowed)
    count = len(prediction.images)
    ids = ", ".join(str(ImageName(prediction.id, number)) for number in range(count))
    return ImageRejected(
        f"{source[:60]} is the id of a job, not of a picture",
        allowed=ids or allowed,
        hint="" if ids else "Wait for it with get_job.",
    )


async def _unknown(studio: Studio, source: str) -> ImageRejected:
    characters = await studio.castmate.characters.list(studio.caller)
    known = [f"{character.id} ({character.name})" for character in characters[:_SHOWN]]
    hint = f"Saved characters: {', '.join(known)}." if known else ""
    return ImageRejected(
        f"there is no picture or character {source[:80]!r}",
        allowed="an image_id or character_id that a tool returned, an https URL or a path",
        hint=f"{hint} list_library shows what there is.".strip(),
    )
