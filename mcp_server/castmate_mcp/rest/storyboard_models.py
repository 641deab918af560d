"""A series of pictures on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from castmate.schema import MAX_SEED, Int, Text
from castmate.storyboard import MAX_SCENE_CHARACTERS, MAX_SCENES, Layout
from castmate_mcp.rest.models import IdentityOut, Status


class RedrawQuery(BaseModel):
    """A scene that is drawn again."""

    model_config = ConfigDict(extra="forbid")

    seed: Int = Field(-1, ge=-1, le=MAX_SEED, description="Of the new picture; -1 draws one.")
    text: Annotated[Text, Field(max_length=MAX_SCENE_CHARACTERS)] = Field(
        "", description="What the scene shows from now on; empty leaves it as it is."
    )


class OrderQuery(BaseModel):
    """Another order of the scenes."""

    model_config = ConfigDict(extra="forbid")

    order: list[Annotated[int, Field(ge=1, le=MAX_SCENES)]] = Field(
        min_length=1,
        max_length=MAX_SCENES,
        description="The numbers that the scenes have now, each once, in their new order.",
        examples=[[2, 1]],
    )


class ExportQuery(BaseModel):
    """A series as one file."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["png", "pdf", "zip"] = Field(
        "png",
        description="png is the contact sheet, pdf a page for each scene, zip every picture, the "
        "sheet and the request.",
    )


class SceneOut(BaseModel):
    """One scene of a series; also the event that announces its end."""

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
        "each scene says whether it was."
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
