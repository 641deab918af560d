"""What a generation tells the agent, in every form at once: each host drops another one."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Literal

from mcp.types import (
    Annotations,
    CallToolResult,
    ContentBlock,
    ImageContent,
    ResourceLink,
    TextContent,
)
from pydantic import BaseModel, Field

from castmate.images import PREVIEW_LIMIT, preview
from castmate.schema import GeneratedImage, GenerateResult
from castmate_mcp.store import StoredImage


class ImageOut(BaseModel):
    """One finished picture."""

    image_id: str = Field(description="Name it as `image` of a later call to draw from it.")
    image_uri: str = Field(description="The MCP resource that gives the whole picture as PNG.")
    file_path: str = Field(description="The file on the machine of the server.")
    width: int
    height: int
    seed: int = Field(description="Makes this picture again, with the same other arguments.")
    has_nsfw: bool = Field(description="It was flagged as unsafe and replaced by a black one.")
    mime_type: str


class GenerationOut(BaseModel):
    """What came of a call."""

    status: Literal["completed"] = "completed"
    images: list[ImageOut]
    client: str = Field(description="What drew them: local, triton or wavespeed.")
    model: str
    elapsed_s: float
    cost_usd: float = Field(description="What was charged; 0 on one's own machine.")
    computed_steps: int | None = Field(
        description="Denoise steps that were computed; fewer than asked for with `cache`."
    )
    warnings: list[str]
    next_step: str


def describe(result: GenerateResult, stored: Sequence[StoredImage]) -> GenerationOut:
    """The result in the words of the tool."""
    images = [
        ImageOut(
            image_id=kept.image_id,
            image_uri=kept.uri,
            file_path=str(kept.path),
            width=image.width,
            height=image.height,
            seed=image.seed,
            has_nsfw=image.has_nsfw,
            mime_type=image.output_format.mime_type,
        )
        for image, kept in zip(result.images, stored, strict=True)
    ]
    return GenerationOut(
        images=images,
        client=result.client,
        model=result.model,
        elapsed_s=round(result.timings_ms["total"] / 1000, 2),
        cost_usd=result.cost_usd,
        computed_steps=result.computed_steps,
        warnings=list(result.warnings),
        next_step="Show the user file_path. For the same character in another scene, call again "
        "with the same `image` and another prompt.",
    )


def to_content(out: GenerationOut, images: Sequence[GeneratedImage]) -> CallToolResult:
    """The answer: structured content, the same as text, small previews and links.

    The previews together stay below what every known host accepts.
    """
    content: list[ContentBlock] = [TextContent(type="text", text=out.model_dump_json())]
    for image in images:
        small = preview(image.data, PREVIEW_LIMIT // len(images))
        content.append(
            ImageContent(
                type="image",
                data=base64.b64encode(small).decode(),
                mime_type="image/jpeg",
                annotations=Annotations(audience=["user", "assistant"], priority=0.8),
            )
        )
    content += [
        ResourceLink(
            type="resource_link",
            name=f"{image.image_id}.png",
            uri=image.image_uri,
            mime_type="image/png",
            description=f"The whole picture, {image.width}*{image.height}, seed {image.seed}",
        )
        for image in out.images
    ]
    return CallToolResult(content=content, structured_content=out.model_dump(mode="json"))
