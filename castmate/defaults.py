"""Defaults for the parameters that a request leaves to the model.

How many steps a model needs and how strongly to guide it depends on its weights, so each model
states its own defaults: a bundle in its manifest, a hosted model in its documentation. From the
door to the ledger a request stays as submitted; the client that draws it fills in the defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from castmate.schema import (
    GenerateRequest,
    GuidanceScale,
    StepCount,
    SubjectScale,
    TrueCfgScale,
)


class Defaults(BaseModel):
    """The parameters that a model decides unless a request does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_inference_steps: StepCount
    guidance_scale: GuidanceScale
    subject_scale: SubjectScale
    true_cfg_scale: TrueCfgScale

    @property
    def in_words(self) -> str:
        """For people, such as 'num_inference_steps 28, guidance_scale 3.5'."""
        return ", ".join(f"{name} {value:g}" for name, value in self.model_dump().items())


class CompleteRequest(GenerateRequest):
    """A request that leaves nothing to the model: what is drawn."""

    num_inference_steps: StepCount
    guidance_scale: GuidanceScale
    subject_scale: SubjectScale
    true_cfg_scale: TrueCfgScale

    @classmethod
    def of(cls, request: GenerateRequest, defaults: Defaults) -> Self:
        """A request with the model's defaults for the parameters that it omits."""
        return cls.model_validate(defaults.model_dump() | request.model_dump(exclude_none=True))

    @property
    def drawn_with(self) -> dict[str, Any]:
        """The values of the parameters that a model may decide."""
        return self.model_dump(include=set(Defaults.model_fields))


class Span(BaseModel):
    """Values that a model was made for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: float
    max: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


Limits = Mapping[str, Span]
"""By parameter; requests beyond them are still drawn, with a warning."""


def check_limits(defaults: Defaults, limits: Limits) -> None:
    """Check that limits make sense.

    Raises:
        ValueError: One is for a parameter that no model decides, or excludes the default.
    """
    values = defaults.model_dump()
    for name, span in limits.items():
        if name not in values:
            raise ValueError(f"there are no limits of {name!r}; allowed are {', '.join(values)}")
        if not span.min <= values[name] <= span.max:
            raise ValueError(
                f"{name} {values[name]:g} is the default and outside {span.min:g}..{span.max:g}"
            )


def beyond_limits(
    request: GenerateRequest, model: str, defaults: Defaults, limits: Limits
) -> Iterator[str]:
    """Warnings for parameters of a request that lie beyond what the model was made for."""
    asked, usual = request.model_dump(), defaults.model_dump()
    for name, span in limits.items():
        if asked[name] is not None and not span.min <= asked[name] <= span.max:
            yield (
                f"{name} {asked[name]:g} is far from what {model!r} was made for "
                f"({span.min:g} to {span.max:g}, by default {usual[name]:g}); expect a worse "
                "picture, or leave it out."
            )
