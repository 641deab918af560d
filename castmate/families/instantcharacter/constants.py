"""What the pipeline needs to know about a network besides its graphs."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from castmate.engines.manifest import Manifest

Share = Annotated[float, Field(ge=0, le=1)]


class SchedulerSpec(BaseModel):
    """FLUX's resolution-dependent shift."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_image_seq_len: int
    max_image_seq_len: int
    base_shift: float
    max_shift: float


class RopeSquare(BaseModel):
    """The square in which a figure stands; its side is the picture's shorter side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    units: Annotated[int, Field(gt=0)] = Field(description="Positions along its side.")
    above: Annotated[float, Field(ge=0, le=1)] = Field(
        description="How much of the height that is left is above it; of the width it is half."
    )


class Constants(BaseModel):
    """The manifest's `constants`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheduler: SchedulerSpec
    pixels_per_token: Annotated[int, Field(gt=0)] = Field(
        description="Side of the square of pixels that one packed latent stands for."
    )
    latent_channels: int = Field(description="Channels of a packed latent.")
    rope_axes_dim: tuple[int, int, int]
    rope_square: RopeSquare | None = Field(
        None, description="Where positions are measured; none counts from the picture's corner."
    )
    crop_px: int = Field(description="Side of one crop of the reference.")
    safety_px: int = Field(description="Side of the picture that the safety checker looks at.")
    reference_margins: tuple[Share, Share] = Field(
        default=(0.0, 0.0),
        description="White above and below the character of a reference, as shares of its longer "
        "side: as much as the network was trained with.",
    )

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The constants of a bundle."""
        return cls.model_validate(manifest.constants)
