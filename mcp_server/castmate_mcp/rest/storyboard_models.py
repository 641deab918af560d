"""A series of pictures on the wire."""

from __future__ import annotations

from pydantic import BaseModel, Field

from castmate.storyboard import Layout
from castmate_mcp.rest.models import IdentityOut, Status


class SceneOut(BaseModel):
    """One scene of a series; also the event that tells that it has ended."""

    number: int = Field(description="From 1.")
    text: str
    prediction_id: str = Field(description="What draws it: a prediction like any other.")
    status: Status
    output: str | None = Field(
        None, description="The address of its picture, good for 7 days without a key."
    )
    seed: int
    has_nsfw: bool = False
    identity: IdentityOut | None = Field(
        None, description="How close its character is to the reference's, where it was judged."
    )
    error: str = Field("", description="Why it was not drawn, or empty.")


class StoryboardOut(BaseModel):
    """A series of pictures."""

    id: str
    layout: Layout
    status: Status = Field(
        description="`completed` once nothing is left to draw and anything was drawn: `status` of "
        "each scene tells whether it was."
    )
    created_at: str = Field(description="RFC 3339, UTC.")
    scenes: list[SceneOut]
    sheet: str | None = Field(
        None,
        description="The address of the contact sheet, once it is completed, good for 7 days "
        "without a key.",
    )
    cost_usd: float = Field(description="What was charged for all of it.")
    warnings: list[str] = Field(description="What was ignored, cut or replaced, in any scene.")
    waiting_for: str | None = Field(
        None, description="Why nobody can draw it now; it is tried again by itself."
    )
    expires_at: str | None = Field(
        None, description="When its first picture is removed: RFC 3339, UTC."
    )
