"""Results of jobs for agents, in every form at once, since each host drops a different one."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final, Literal

from mcp.server.mcpserver import Context
from mcp.types import (
    Annotations,
    CallToolResult,
    ContentBlock,
    ImageContent,
    ResourceLink,
    TextContent,
)
from pydantic import BaseModel

from castmate.identity import judged
from castmate.images import PREVIEW_LIMIT, PREVIEW_SIDE, base64_length, preview
from castmate.jobs.predictions import Prediction, State, StoredImage
from castmate.times import iso8601
from castmate_mcp.agent.advice import codes
from castmate_mcp.agent.studio import GENERATE, Studio
from castmate_mcp.http.ids import ImageName, job_id_of

_SIDE: Final = 1024  # of a contact sheet's preview, whose captions must be legible
STATUS: Final[dict[State, Literal["running", "completed", "cancelled", "failed"]]] = {
    State.CREATED: "running",
    State.PROCESSING: "running",
    State.COMPLETED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}

MONEY: Final = {
    True: "It was charged.",
    False: "Nothing was charged.",
    None: "It may be charged.",
}


class ImageOut(BaseModel):
    """One finished picture; one that is unsafe was replaced by a black one."""

    # Only these fields of an `ImageRecord` are shown.

    image_id: str
    image_uri: str
    file_path: str | None = None
    download_url: str | None = None
    width: int
    height: int
    seed: int
    has_nsfw: bool
    identity: dict[str, Any] | None = None
    scene: int | None = None
    caption: str | None = None


class UndrawnOut(BaseModel):
    """A scene that ended without a picture."""

    scene: int
    caption: str
    why: str


class JobOut(BaseModel):
    """One job and its pictures."""

    status: Literal["running", "completed", "cancelled", "failed"]
    job_id: str
    images: list[ImageOut]
    sheet: ImageOut | None = None
    failed: list[UndrawnOut] = []
    saved_to: list[str] = []
    progress: str | None = None
    client: str | None = None
    elapsed_s: float | None = None
    expires_at: str | None = None
    cost_usd: float = 0.0
    computed_steps: int | None = None
    drawn_with: dict[str, Any] = {}
    reference: dict[str, Any] | None = None
    no_identity: str | None = None
    selection: dict[str, Any] | None = None
    deduplicated: bool = False
    warnings: list[str] = []
    next_step: str


def describe(
    studio: Studio, job: Prediction, ctx: Context[Any, Any], progress: str | None = None
) -> JobOut:
    """A job that has not failed, in the tools' words."""
    job_id, result = job_id_of(job.id), job.result
    started = job.started or job.created
    out = JobOut(
        status=STATUS[job.state],
        job_id=job_id,
        images=[],
        elapsed_s=round((job.finished or time.time()) - started, 2),
        expires_at=iso8601(job.expires) if job.expires else None,
        next_step="",
    )
    if result is None:
        if job.state is State.CANCELLED:
            charged = job.error["charged"] if job.error else False
            out.next_step = f"{MONEY[charged]} Call generate_character_image again if it is wanted."
            return out
        if job.waits_for is not None:
            out.progress = waiting_for(studio, str(job.waits_for["message"]))
        else:
            turn = "waiting for its turn" if job.state is State.CREATED else "drawing"
            out.progress = progress or turn
        out.next_step = (
            f"Not finished, not lost: call get_job with job_id {job_id} to wait for the picture. "
            "Do not generate it again."
        )
        if job.waits_for is not None and "not_agreed" in codes(job.waits_for):
            out.next_step += (
                f" If it goes on waiting, {GENERATE} with the same arguments asks the user whether "
                "to pay for it."
            )
        return out
    for number, image in enumerate(result.images):
        if image.discarded is None:
            out.images.append(image_out(studio, ImageName(job.id, number), image, ctx))
    out.client, out.cost_usd, out.warnings = result.client, result.cost_usd, [*result.warnings]
    out.computed_steps, out.drawn_with = result.computed_steps, dict(result.drawn_with)
    if result.reference is not None:
        out.reference = asdict(result.reference)
    out.no_identity = result.no_identity or None
    if result.selection is not None:
        out.selection = asdict(result.selection)
    if not out.images:
        out.next_step = "Its pictures were deleted: edit_library restores one within a day."
        return out
    out.next_step = (
        f"Show the user the {where(out.images[0])}. If you cannot see the picture, call view_image "
        "with its image_id. For another scene, generate again with the same `image`."
    )
    return out


def image_out(
    studio: Studio, name: ImageName, image: StoredImage, ctx: Context[Any, Any]
) -> ImageOut:
    """A finished picture, with every way in which this caller can reach it."""
    return ImageOut(
        image_id=str(name),
        image_uri=name.uri,
        file_path=studio.file_path(image),
        download_url=studio.download_url(image, ctx),
        **image.record() | {"identity": judged(image.identity)},
    )


def where(image: ImageOut) -> str:
    """The part of a result that leads a user to its picture."""
    if image.file_path:
        return "file_path"
    return "download_url" if image.download_url else "picture"


def waiting_for(studio: Studio, why: str) -> str:
    """A job's status while no client can draw it."""
    return f"waiting for a client that can draw, and tried again by itself: {studio.shown(why)}"


async def to_content(studio: Studio, out: JobOut, shown: Sequence[str]) -> CallToolResult:
    """The answer: structured content, the same as text, small previews and links.

    Together, the previews stay below every known host's limit.

    Args:
        studio: Has the pictures.
        out: The job.
        shown: The storage's names of the pictures to preview.
    """
    structured = out.model_dump(mode="json", exclude_none=True)
    content: list[ContentBlock] = [
        TextContent(type="text", text=out.model_dump_json(exclude_none=True))
    ]
    for name in shown:
        small = await studio.castmate.storage.preview(name, _SIDE if out.sheet else PREVIEW_SIDE)
        if base64_length(small) > (limit := PREVIEW_LIMIT // len(shown)):
            small = await asyncio.to_thread(preview, small, limit)
        content.append(image_content(small))
    content += [
        ResourceLink(
            type="resource_link",
            name=f"{image.image_id}.png",
            uri=image.image_uri,
            mime_type="image/png",
            description=f"The whole picture, {image.width}*{image.height}, seed {image.seed}",
        )
        for image in (*([out.sheet] if out.sheet else []), *out.images)
    ]
    return CallToolResult(content=content, structured_content=structured)


def image_content(jpeg: bytes) -> ImageContent:
    """A small picture that both the model and the user see."""
    return ImageContent(
        type="image",
        data=base64.b64encode(jpeg).decode(),
        mime_type="image/jpeg",
        annotations=Annotations(audience=["user", "assistant"], priority=0.8),
    )


def tool_result(out: BaseModel) -> CallToolResult:
    """An answer without pictures, structured and as text."""
    return CallToolResult(
        content=[TextContent(type="text", text=out.model_dump_json(exclude_none=True))],
        structured_content=out.model_dump(mode="json", exclude_none=True),
    )
