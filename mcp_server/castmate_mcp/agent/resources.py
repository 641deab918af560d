"""What hosts may read: pictures and previews, characters, jobs, and how to write prompts."""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files

from mcp.server.mcpserver.exceptions import ResourceNotFoundError

from castmate.errors import InvalidRequest, PredictionNotFound
from castmate.images import as_png
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import Studio
from castmate_mcp.http.ids import CharacterName, ImageName, job_id_of
from castmate_mcp.http.saved import image_names

GUIDE = "guide://prompting"


def add(server: StrictServer, studio: Studio) -> None:
    """Add every resource.

    Args:
        server: To which one.
        studio: What they show.
    """
    storage = studio.castmate.storage

    @server.resource(
        "image://{image_id}",
        name="image",
        title="A finished picture",
        description="A picture that was drawn, whole, as PNG.",
        mime_type="image/png",
    )
    async def image(image_id: str) -> bytes:
        try:
            found = await studio.picture(_image_name(image_id))
            return await asyncio.to_thread(as_png, await storage.get(found.name))
        except FileNotFoundError:
            raise _no_image(image_id) from None

    @server.resource(
        "image://{image_id}/preview.jpg",
        name="preview",
        title="A small finished picture",
        description="A picture that was drawn, at most 512 pixels a side, as JPEG.",
        mime_type="image/jpeg",
    )
    async def preview(image_id: str) -> bytes:
        try:
            found = await studio.picture(_image_name(image_id))
            return await storage.preview(found.name)
        except FileNotFoundError:
            raise _no_image(image_id) from None

    @server.resource(
        "character://{character_id}",
        name="character",
        title="A saved character",
        description="Its name and how many pictures it has, as JSON.",
        mime_type="application/json",
    )
    async def character(character_id: str) -> str:
        name = CharacterName.parse(character_id)
        known = studio.castmate.characters
        found = await known.find(name.character_id, studio.caller) if name else None
        if found is None:
            raise ResourceNotFoundError(
                f"There is no character {character_id!r}: list_library shows those there are."
            )
        return json.dumps(
            {
                "character_id": found.id,
                "name": found.name,
                "num_references": len(found.pictures),
                "next_step": f"Call generate_character_image with image {found.id}.",
            }
        )

    @server.resource(
        "job://{job_id}",
        name="job",
        title="A job",
        description="Its status, and the ids of its pictures, as JSON.",
        mime_type="application/json",
    )
    async def job(job_id: str) -> str:
        try:
            found = await studio.job(job_id)
        except (InvalidRequest, PredictionNotFound):
            raise ResourceNotFoundError(
                f"There is no job {job_id!r}: list_library shows those there are."
            ) from None
        names = image_names(found)
        return json.dumps(
            {
                "job_id": job_id_of(found.id),
                "status": found.state,
                "images": [name.uri for name in names],
                "error": found.error and found.error["message"],
            }
        )

    @server.resource(
        GUIDE,
        name="prompting",
        title="How to write prompts that keep the character",
        description="What to say in a prompt, what to leave out, and what each parameter does.",
        mime_type="text/markdown",
    )
    def prompting() -> str:
        return (files("castmate_mcp.agent") / "guide.md").read_text(encoding="utf-8")


def _image_name(image_id: str) -> ImageName:
    if (name := ImageName.parse(image_id)) is None:
        raise FileNotFoundError(image_id)
    return name


def _no_image(image_id: str) -> ResourceNotFoundError:
    return ResourceNotFoundError(
        f"There is no picture {image_id!r}: use the image_id of a generate_character_image result."
    )
