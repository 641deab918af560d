"""The request for a series of pictures of one character: up to twelve scenes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from castmate.errors import InvalidRequest
from castmate.schema import GenerateRequest, Text, check_transparency
from castmate.validation import problems_of

MAX_SCENES: Final = 12
MAX_SCENE_CHARACTERS: Final = 2000
MAX_STYLE_CHARACTERS: Final = 1000

_PER_SCENE: Final = ("prompt", "image", "num_images")
"""Fields of a generation that a series does not share unchanged among its scenes."""
_ON_SHEETS: Final = "plain white background"


class Layout(StrEnum):
    """What the contact sheet of a series is for."""

    STORYBOARD = "storyboard"
    SHEET = "sheet"


class Series(BaseModel):
    """What a series has besides the parameters that its scenes share; see `StoryboardRequest`."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    scenes: Annotated[
        list[Annotated[Text, Field(min_length=1, max_length=MAX_SCENE_CHARACTERS)]],
        Field(min_length=1, max_length=MAX_SCENES),
    ] = Field(
        description="What the character does and where, one text for each picture; they are the "
        "captions, too.",
        examples=[["waving on a beach", "reading in bed"]],
    )
    image: Annotated[str, Field(min_length=1)] = Field(
        description=str(GenerateRequest.model_fields["image"].description)
    )
    style_words: Annotated[Text, Field(max_length=MAX_STYLE_CHARACTERS)] = Field(
        default="", description="Added to the prompt of every scene, such as watercolour."
    )
    layout: Layout = Field(
        default=Layout.STORYBOARD,
        description="Of the contact sheet: storyboard numbers the scenes of a story; sheet shows "
        "the views of a character, drawn on white, with their captions as labels.",
    )

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Validate a caller's series.

        Raises:
            InvalidRequest: With one `Problem` for each bad parameter.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InvalidRequest(problems_of(cls, error)) from None

    @model_validator(mode="after")
    def _transparency_can_be_kept(self) -> Self:
        shared = GenerateRequest.model_fields
        background, output_format = (
            getattr(self, name, shared[name].default) for name in ("background", "output_format")
        )
        check_transparency(background, output_format)
        return self

    def requests(self, seed: int) -> list[GenerateRequest]:
        """One generation for each scene; all have the same seed.

        Args:
            seed: Used if the series names none.
        """
        shared = {
            name: value
            for name in GenerateRequest.model_fields
            if (value := getattr(self, name, None)) is not None
        }
        shared |= {"seed": shared["seed"] if shared["seed"] >= 0 else seed, "num_images": 1}
        return [GenerateRequest(**shared, prompt=self._prompt(scene)) for scene in self.scenes]

    def _prompt(self, scene: str) -> str:
        ground = _ON_SHEETS if self.layout is Layout.SHEET else ""
        return ", ".join(filter(None, (scene, self.style_words, ground)))


_SHARED: Final[dict[str, Any]] = {
    name: (field.annotation, field)
    for name, field in GenerateRequest.model_fields.items()
    if name not in _PER_SCENE
}
StoryboardRequest = create_model(
    "StoryboardRequest",
    __base__=Series,
    __doc__="A series of pictures of one character, and the parameters that they share.",
    **_SHARED,
)
"""`Series` with what its scenes share: every parameter of a generation, also those to come."""
