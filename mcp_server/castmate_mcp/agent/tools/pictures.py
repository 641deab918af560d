"""view_image: pictures and nothing else, for hosts that drop them from other results."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Final

from mcp.types import ImageContent
from pydantic import Field

from castmate.errors import ImageRejected, InvalidRequest, Problem
from castmate.images import PREVIEW_LIMIT, base64_length, preview
from castmate.jobs.names import could_be_name, no_such_name
from castmate.jobs.storage import PREVIEW_SIDES
from castmate.schema import Int
from castmate.shorten import shorten
from castmate_mcp.agent.extensions import viewer
from castmate_mcp.agent.results import image_content
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import Studio
from castmate_mcp.agent.tools import READS
from castmate_mcp.http.ids import CharacterName, ImageName
from castmate_mcp.http.saved import character_named, stored_names

# Not an enum in the schema: Gemini refuses every request that holds one of numbers.
_SIDES: Final = ", ".join(map(str, PREVIEW_SIDES))
_ALLOWED: Final = (
    "an image_id that generate_character_image, get_job or list_library returned, or the name or "
    "id of a saved character"
)


def add(server: StrictServer, studio: Studio) -> None:
    """Add the tool.

    Args:
        server: To which one.
        studio: What it works with.
    """

    @server.tool(
        title="See a picture or a character",
        meta=viewer.SHOWN,
        annotations=READS,
        structured_output=False,
    )
    async def view_image(
        image_id: Annotated[
            str,
            Field(description="Of a picture (img_...), or a character's name or id."),
        ],
        max_px: Annotated[Int, Field(description=f"Longer side in pixels: {_SIDES};")] = 768,
    ) -> list[ImageContent]:
        """Show a finished picture, or the references of a character.

        Use it to look when a result showed none. Not for the whole picture: that is its image_uri
        or file_path. It is free. Returns only JPEGs.
        """
        if max_px not in PREVIEW_SIDES:
            raise InvalidRequest([Problem("max_px", f"{max_px} is not allowed", _SIDES)])
        try:
            return await _previews(studio, await _names(studio, image_id.strip()), max_px)
        except FileNotFoundError:
            raise _unknown(image_id) from None


async def _names(studio: Studio, image_id: str) -> list[str]:
    """What the storage calls the pictures that are meant.

    Raises:
        FileNotFoundError: There are none.
        InvalidRequest: Several characters are called so, or none, or it has fewer pictures.
    """
    if name := ImageName.parse(image_id):
        return [(await studio.picture(name)).name]
    try:
        character = CharacterName.parse(image_id) or await character_named(
            studio.castmate, image_id, studio.caller
        )
        is_id = image_id.startswith(("img_", "chr_", "job_"))
        if character is None and could_be_name(image_id) and not is_id:
            known = await studio.castmate.characters.list(studio.caller)
            raise no_such_name(known, image_id, _ALLOWED)
        if character is None:
            raise FileNotFoundError(image_id)
        return [*await stored_names(studio.castmate, character, studio.caller)]
    except ImageRejected as error:
        raise _at("image_id", error) from None


async def _previews(studio: Studio, names: list[str], max_px: int) -> list[ImageContent]:
    """Small pictures that together stay below what every host accepts."""
    limit, shown = PREVIEW_LIMIT // len(names), []
    for name in names:
        small = await studio.castmate.storage.preview(name, max_px)
        if base64_length(small) > limit:
            small = await asyncio.to_thread(preview, small, limit)
        shown.append(image_content(small))
    return shown


def _at(parameter: str, error: InvalidRequest) -> InvalidRequest:
    return InvalidRequest([replace(one, parameter=parameter) for one in error.problems])


def _unknown(image_id: str) -> InvalidRequest:
    message = f"there is no finished picture {shorten(image_id, 80)!r}"
    return InvalidRequest([Problem("image_id", message, _ALLOWED)])
