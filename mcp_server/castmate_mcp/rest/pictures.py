"""Finished pictures: found by words, character, style and date, and small ones of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from starlette.responses import Response

from castmate.errors import ImageRejected, InvalidRequest, Problem
from castmate.jobs.characters import Character
from castmate.jobs.gallery import Found, Wanted
from castmate.jobs.storage import PREVIEW_SIDES, preview_name
from castmate.picture_metadata import PictureMetadata
from castmate.shorten import shorten
from castmate.times import rfc3339
from castmate_mcp.http.envelope import Refusal, success
from castmate_mcp.http.files import HEADERS
from castmate_mcp.http.ids import CharacterName, ImageName
from castmate_mcp.http.saved import character_named, picture_of
from castmate_mcp.rest.media import sent_file
from castmate_mcp.rest.operation import Call
from castmate_mcp.rest.outputs import no_picture
from castmate_mcp.rest.picture_models import (
    CharacterRef,
    DrawnOut,
    PictureList,
    PictureOut,
    PicturesQuery,
)
from castmate_mcp.rest.presenter import identity_of

_THUMBNAIL_PX: Final = PREVIEW_SIDES[0]


async def list_pictures(call: Call) -> Response:
    """`GET /api/v3/pictures`: one's own, the newest first, behind those of the page before."""
    query = call.query(PicturesQuery)
    castmate, key_name = call.gateway.castmate, call.key.name
    behind = _cursor(query.cursor)
    wanted = Wanted(
        key_name,
        query.query,
        await _references(call, query.character) if query.character else None,
        query.style,
        query.since.timestamp() if query.since else None,
        query.until.timestamp() if query.until else None,
    )
    found: list[Found] = []
    async for one in castmate.gallery.find(wanted, behind, query.limit + 1):
        found.append(one)
        if len(found) > query.limit:
            break
    more = len(found) > query.limit
    found = found[: query.limit]
    first = {one.prediction.references[0] for one in found}
    shown = await castmate.characters.with_pictures([*first], key_name)
    items = [_told(call, one, shown) for one in found]
    return success(PictureList(items=items, next_cursor=items[-1].id if more else None))


async def thumbnail(call: Call) -> Response:
    """`GET /api/v3/pictures/{id}/thumbnail`: a small JPEG, made once."""
    text = call.request.path_params["id"]
    if (name := ImageName.parse(text)) is None:
        raise no_picture(text)
    storage = call.gateway.castmate.storage
    try:
        picture = await picture_of(call.gateway.castmate, name, call.key.name)
        data = await storage.preview(picture.name, _THUMBNAIL_PX)
    except FileNotFoundError:
        raise no_picture(text) from None
    return Response(data, media_type="image/jpeg", headers=HEADERS)


async def read(call: Call) -> Response:
    """`POST /api/v3/pictures/read`: the request that a picture's file holds; nothing is kept."""
    async with sent_file(call) as (data, filename):
        try:
            found = PictureMetadata.read(data, shorten(filename, 60))
        except ImageRejected as error:
            raise Refusal(404, str(error)) from None
    sha256 = found.request.image.removeprefix("sha256:")
    name = await call.gateway.castmate.ledger.pictures.find(sha256, call.key.name)
    # Several pictures of a character are one file, which no door takes.
    image = call.gateway.file_url(call.base_url, name) if name and "." in name else None
    return success(DrawnOut(image=image, **found.as_dict()))


async def _references(call: Call, text: str) -> Sequence[str]:
    """The hashes of the pictures of the character that is meant."""
    castmate, key_name = call.gateway.castmate, call.key.name
    try:
        name = CharacterName.parse(text) or await character_named(castmate, text, key_name)
    except ImageRejected as error:  # several are called so
        (problem,) = error.problems
        raise InvalidRequest(
            [Problem("character", problem.message, problem.allowed, problem.hint)]
        ) from None
    found = name and await castmate.characters.find(name.character_id, key_name)
    if not found:
        message = f"there is no character {text!r}"
        allowed = "the id or name of a saved character"
        raise InvalidRequest(
            [Problem("character", message, allowed, "GET /api/v3/characters lists them.")]
        )
    return await castmate.characters.hashes_of(found)


def _cursor(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    if (name := ImageName.parse(text)) is None:
        problem = Problem(
            "cursor",
            f"{text!r} is no next_cursor",
            "next_cursor of the page before",
            "Leave it out for the first page.",
        )
        raise InvalidRequest([problem])
    return name.prediction_id, name.number


def _told(call: Call, found: Found, shown: Mapping[str, Character]) -> PictureOut:
    prediction, image, gateway = found.prediction, found.image, call.gateway
    character = shown.get(prediction.references[0])
    small = preview_name(image.name, _THUMBNAIL_PX)
    return PictureOut(
        id=str(ImageName(prediction.id, found.number)),
        prediction_id=prediction.id,
        index=found.number,
        url=gateway.file_url(call.base_url, image.name),
        thumbnail_url=gateway.file_url(call.base_url, small),
        created_at=rfc3339(prediction.created),
        name=image.title,
        character=CharacterRef(id=character.id, name=character.name) if character else None,
        identity=identity_of(image.identity),
        style=prediction.request.style,
        width=image.width,
        height=image.height,
        seed=image.seed,
        has_nsfw=image.has_nsfw,
        input=prediction.request.model_dump(mode="json", exclude_none=True),
    )
