"""What the pipeline needs to know of a network beside its graphs."""

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


class Constants(BaseModel):
    """The manifest's `constants`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheduler: SchedulerSpec
    pixels_per_token: Annotated[int, Field(gt=0)] = Field(
        description="Side of the square of pixels that one packed latent stands for."
    )
    latent_channels: int = Field(description="Channels of a packed latent.")
    rope_axes_dim: tuple[int, int, int]
    crop_px: int = Field(description="Side of one crop of the reference.")
    safety_px: int = Field(description="Side of the picture that the safety checker looks at.")
    reference_margins: tuple[Share, Share] = Field(
        default=(0.0, 0.0),
        description="White above and below the character of a reference, as shares of its longer "
        "side: as much as the network was trained with.",
    )

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Those of a bundle."""
        return cls.model_validate(manifest.constants)
