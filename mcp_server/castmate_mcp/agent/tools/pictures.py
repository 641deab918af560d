"""view_image: the picture and nothing else, for hosts that drop it from other results."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.types import ImageContent
from pydantic import Field

from castmate.errors import InvalidRequest, Problem
from castmate_mcp.agent.extensions import viewer
from castmate_mcp.agent.ids import ImageName
from castmate_mcp.agent.results import image_content
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import Studio
from castmate_mcp.agent.tools import READS


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
            str, Field(min_length=1, description="The image_id of a finished picture.")
        ],
        max_px: Annotated[
            Literal[256, 512, 768, 1024],
            Field(description="Longer side in pixels, at most."),
        ] = 768,
    ) -> list[ImageContent]:
        """Show a finished picture, small enough for every host.

        Use it to look at a picture when another tool's result showed none. Not for the whole
        picture: that is its image_uri or file_path. It is free. Returns only the JPEG.
        """
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
                f"there is no finished picture {image_id[:80]!r}",
                "an image_id that generate_character_image, get_job or list_library returned",
            )
        ]
    )
