"""Finished pictures, and what is looked at before one is drawn, on the wire."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from castmate.schema import MAX_STYLE_CHARACTERS, Framing, GenerateRequest, Matting
from castmate_mcp.rest.models import EXAMPLE_PICTURE, IdentityOut, Time

MAX_PAGE = 100


class PicturesQuery(BaseModel):
    """Which finished pictures."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(
        "",
        max_length=200,
        description="Words of the prompt or the picture's name, all of which have to be there; "
        "from three letters on the beginning of one is enough.",
    )
    character: str = Field(
        "", max_length=200, description="The id or name of the saved character that they show."
    )
    style: str = Field("", max_length=MAX_STYLE_CHARACTERS, description="The style that they have.")
    since: Time | None = Field(
        None, description="Asked for then or later: a date, or a time as RFC 3339."
    )
    until: Time | None = Field(None, description="Asked for before then.")
    cursor: str = Field(
        "", max_length=64, description="`next_cursor` of the page before; empty for the first one."
    )
    limit: int = Field(40, ge=1, le=MAX_PAGE, description="How many a page has, at most.")


class CharacterRef(BaseModel):
    """A saved character, in short."""

    id: str
    name: str


class PictureOut(BaseModel):
    """A finished picture."""

    id: str = Field(description="As `image` of a generation, and in the addresses of pictures.")
    prediction_id: str = Field(description="What drew it.")
    index: int = Field(description="Which of the prediction's pictures, from 0.")
    url: str = Field(description="Its address, good for 7 days without a key.")
    thumbnail_url: str = Field(
        description="The address of a JPEG of at most 256 pixels a side, good for 7 days without a "
        "key."
    )
    created_at: str = Field(description="When it was asked for: RFC 3339, UTC.")
    name: str = Field(description="What its owner calls it, or empty.")
    character: CharacterRef | None = Field(
        None, description="The saved character that it shows; null where that is none."
    )
    identity: IdentityOut | None = Field(
        None, description="How close its character is to the reference's; null where not judged."
    )
    style: str = Field(description="Or empty.")
    width: int
    height: int
    seed: int = Field(description="Makes it again with num_images 1.")
    has_nsfw: bool
    input: dict[str, Any] = Field(
        description="The request; in place of the reference picture stands its hash."
    )


class PictureList(BaseModel):
    """A page of finished pictures, the newest first."""

    items: list[PictureOut]
    next_cursor: str | None = Field(
        None, description="`cursor` of the next page; left out where there is none."
    )


class DrawnOut(BaseModel):
    """How a picture was drawn, by what its file says; nothing vouches for it."""

    request: dict[str, Any] = Field(
        description="Draws it again; in place of the reference picture stands its hash."
    )
    image: str | None = Field(
        None,
        description="For `image` of that request: the address of the reference, where this key has "
        "sent it and it is still here.",
    )
    drawn_with: dict[str, int | float] = Field(
        description="What the model decided where the request did not."
    )
    client: str
    model: str
    model_hash: str = Field(description="Of the bundle's manifest, or empty.")
    castmate: str = Field(description="The version that wrote it.")


class PreviewQuery(BaseModel):
    """A reference that is looked at before it is saved or drawn from."""

    model_config = ConfigDict(extra="forbid")

    image: str = Field(
        min_length=1, description="As `image` of a generation.", examples=[EXAMPLE_PICTURE]
    )
    enable_matting: Matting = Field(
        Matting.AUTO,
        description=str(GenerateRequest.model_fields["enable_matting"].description),
    )


class FramedOut(BaseModel):
    """What would be drawn from."""

    framing: Framing = Field(
        description="How the character was found; with `none` the whole picture is taken."
    )
    box: list[float] = Field(
        description="Left, top, right and bottom, as shares of the picture's width and height."
    )
    width: int = Field(description="Of the picture, in pixels.")
    height: int
    image: str = Field(
        description="The part that is taken, on white: a JPEG of at most 512 pixels a side, as a "
        "data URI."
    )
    warnings: list[str]
