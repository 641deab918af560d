"""create_upload_link: a picture from the caller's own disk reaches a server that is elsewhere."""

from __future__ import annotations

import time
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import BaseModel

from castmate_mcp.agent.results import tool_result
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import Studio
from castmate_mcp.http.gateway import gateway
from castmate_mcp.http.uploads import ANY_SIZE, TICKET_S, new_upload, upload_path


class UploadOut(BaseModel):
    """Where to send a picture."""

    upload_url: str
    image: str
    expires_in_s: float = TICKET_S
    next_step: str


def add(server: StrictServer, studio: Studio) -> None:
    """Add the tool, where there is HTTP.

    Args:
        server: To which one.
        studio: What it works with.
    """

    @server.tool(
        title="Get a link to send a picture to",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, open_world_hint=False
        ),
    )
    async def create_upload_link(ctx: Context[Any, Any]) -> Annotated[CallToolResult, UploadOut]:
        """Give an address that takes one picture file, for an hour.

        Use it when the character is a file of the user's. Not for an https URL. It is free.
        Returns upload_url, to PUT the file to, and the `image` to draw from.
        """
        request = ctx.request_context.request
        storage, name = studio.castmate.storage, new_upload()
        path = upload_path(storage, name, ANY_SIZE, studio.key, time.time())
        url = gateway(request).base_url(request) + path  # type: ignore[arg-type]
        image = f"upload://{name.partition('/')[2]}"
        out = UploadOut(
            upload_url=url,
            image=image,
            next_step=f"Run: curl --fail --upload-file PICTURE '{url}' - or let the user do it. "
            f"Then call generate_character_image with image {image}.",
        )
        return tool_result(out)
