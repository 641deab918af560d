"""Finds the picture that a tool call names: ids first, then URLs, data and paths."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from mcp.server.mcpserver import Context

from castmate.errors import CastmateError, ImageRejected
from castmate.images import Reference
from castmate.jobs.names import could_be_name, no_such_name
from castmate.jobs.storage import UPLOADS
from castmate.references import is_base64, resolve
from castmate.several import MAX_TOGETHER, together
from castmate.shorten import shorten
from castmate_mcp.agent.studio import Studio
from castmate_mcp.http.ids import CharacterName, ImageName, prediction_id_of
from castmate_mcp.http.saved import character_named, image_names, stored_names

_SHOWN: Final = 5
_URI: Final = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_UPLOAD: Final = re.compile(r"upload://([0-9-]{10}/[0-9a-f]{32}\.png)")


async def reference_of(studio: Studio, ctx: Context[Any, Any], source: str) -> Reference:
    """Read and check the picture that a caller names.

    Args:
        studio: Knows the caller and what they own.
        ctx: The call that names it.
        source: An id or URI of a picture or a character, a character's name, an https URL, a data
            URI or a path.

    Raises:
        ImageRejected: Says why, and what is allowed instead.
        Overloaded: Too many pictures are being fetched for the caller.
    """
    source = source.strip()
    if name := ImageName.parse(source) or _own_file(studio, source):
        return await _of_saved(studio, name)
    if character := CharacterName.parse(source):
        return await _of_saved(studio, character)
    if upload := _UPLOAD.fullmatch(source):
        return await _of_upload(studio, upload[1])
    if stored := _signed_file(studio, source):
        return await _of_signed_file(studio, stored)
    if prediction_id_of(source):
        raise await _instead_of_job(studio, source)
    if source.startswith(("img_", "chr_", "image://", "character://")):
        raise await _unknown(studio, source)
    if saved := await character_named(studio.castmate, source, studio.caller):
        return await _of_saved(studio, saved)
    settings = studio.castmate.settings
    roots = settings.image_roots if studio.reads_paths else ()
    try:
        return await resolve(
            source,
            roots=roots,
            allow_http=settings.allow_http,
            use_proxy=settings.fetch_proxy,
            fetch=studio.fetching(ctx),
            caller=studio.caller,
        )
    except ImageRejected as error:
        if could_be_name(source) and not is_base64(source):
            known = await studio.castmate.characters.list(studio.caller)
            raise no_such_name(known, source, error.problems[0].allowed) from None
        if studio.base_url is None or _URI.match(source) or is_base64(source):
            raise
        raise _instead_of_path(studio, source, error) from None


def _signed_file(studio: Studio, source: str) -> str | None:
    """The stored file whose `download_url` this is, under any of this server's addresses.

    Raises:
        ImageRejected: The URL has expired.
    """
    if not source[:8].lower().startswith(("https://", "http://")):
        return None
    try:
        path = urlsplit(source).path
    except ValueError:
        return None
    storage = studio.castmate.storage
    name = storage.verify(path, 0.0)  # checks the signature, whatever its age
    if name is not None and storage.verify(path, time.time()) is None:
        raise ImageRejected(
            "that download_url has expired",
            hint="Use the image_id of the picture, or get_job for a new download_url.",
        )
    return name


async def _of_signed_file(studio: Studio, name: str) -> Reference:
    try:
        data = await studio.castmate.storage.get(name)
    except FileNotFoundError:
        raise ImageRejected(
            "the picture of that download_url is no longer in the storage",
            hint="list_library shows what there is.",
        ) from None
    return await Reference.read(data, "the download_url", studio.caller)


def _instead_of_path(studio: Studio, source: str, error: ImageRejected) -> ImageRejected:
    """How to send a user's file, if the server runs or may run on another machine."""
    (problem,) = error.problems
    upload = "call create_upload_link, send the file there and use the `image` that it gives."
    if studio.reads_paths:
        hint = f"{problem.hint.rstrip('.')}. Or {upload}" if problem.hint else f"Else {upload}"
        return ImageRejected(problem.message, allowed=problem.allowed, hint=hint)
    return ImageRejected(
        f"{shorten(source, 60)!r} is a path, and this server cannot see the user's files",
        allowed="an image_id, a character_id, an https URL, a data URI; no path",
        hint=upload[0].upper() + upload[1:],
    )


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


async def _of_saved(studio: Studio, name: ImageName | CharacterName) -> Reference:
    try:
        names = await stored_names(studio.castmate, name, studio.caller)
        found = [await studio.castmate.storage.get(one) for one in names[:MAX_TOGETHER]]
    except FileNotFoundError:
        raise await _unknown(studio, _saved_id(name)) from None
    label = _saved_id(name)
    return together([await Reference.read(data, label, studio.caller) for data in found])


def _saved_id(name: ImageName | CharacterName) -> str:
    return str(name) if isinstance(name, ImageName) else name.character_id


async def _instead_of_job(studio: Studio, source: str) -> ImageRejected:
    allowed = "the image_id of a finished picture"
    try:
        prediction = await studio.job(source)
    except CastmateError:
        return ImageRejected(
            f"{shorten(source, 60)} is the id of a job, not of a picture", allowed=allowed
        )
    ids = ", ".join(map(str, image_names(prediction)))
    return ImageRejected(
        f"{shorten(source, 60)} is the id of a job, not of a picture",
        allowed=ids or allowed,
        hint="" if ids else "Wait for it with get_job.",
    )


async def _unknown(studio: Studio, source: str) -> ImageRejected:
    characters = await studio.castmate.characters.list(studio.caller)
    known = [f"{character.id} ({character.name})" for character in characters[:_SHOWN]]
    hint = f"Saved characters: {', '.join(known)}." if known else ""
    return ImageRejected(
        f"there is no picture or character {shorten(source, 80)!r}",
        allowed="an image_id or character_id that a tool returned, an https URL or a path",
        hint=f"{hint} list_library shows what there is.".strip(),
    )
