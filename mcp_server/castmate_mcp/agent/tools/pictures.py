"""view_image: the picture and nothing else, for hosts that drop it from other results."""

from __future__ import annotations

from typing import Annotated, Final

from mcp.types import ImageContent
from pydantic import Field

from castmate.errors import InvalidRequest, Problem
from castmate.jobs.storage import PREVIEW_SIDES
from castmate.schema import Int
from castmate.shorten import shorten
from castmate_mcp.agent.extensions import viewer
from castmate_mcp.agent.results import image_content
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import Studio
from castmate_mcp.agent.tools import READS
from castmate_mcp.http.ids import ImageName

# Not an enum in the schema: Gemini refuses every request that holds one of numbers.
_SIDES: Final = ", ".join(map(str, PREVIEW_SIDES))


def add(server: StrictServer, studio: Studio) -> None:
    """Add the tool.

    Args:
        server: To which one.
        studio: What it works with.
    """

    @server.tool(
        title="See a picture",
        meta=viewer.SHOWN,
        annotations=READS,
        structured_output=False,
    )
    async def view_image(
        image_id: Annotated[
            str, Field(min_length=1, description="Of a finished picture (img_...).")
        ],
        max_px: Annotated[Int, Field(description=f"Longer side in pixels: {_SIDES};")] = 768,
    ) -> list[ImageContent]:
        """Show a finished picture, small enough for every host.

        Use it to look when a result showed none. Not for the whole picture: that is its image_uri
        or file_path. It is free. Returns only a JPEG.
        """
        if max_px not in PREVIEW_SIDES:
            raise InvalidRequest([Problem("max_px", f"{max_px} is not allowed", _SIDES)])
        name = ImageName.parse(image_id)
        try:
            if name is None:
                raise FileNotFoundError(image_id)
            image = await studio.picture(name)
            return [image_content(await studio.castmate.storage.preview(image.name, max_px))]
        except FileNotFoundError:
            raise _unknown(image_id) from None


def _unknown(image_id: str) -> InvalidRequest:
    return InvalidRequest(
        [
            Problem(
                "image_id",
                f"there is no finished picture {shorten(image_id, 80)!r}",
                "an image_id that generate_character_image, get_job or list_library returned",
            )
        ]
    )
