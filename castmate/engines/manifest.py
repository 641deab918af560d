"""The content of `bundle.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from castmate.defaults import Defaults, Span, check_limits
from castmate.engines.graphs import Range, TensorSpec
from castmate.engines.licences import Licence

FORMAT = 3
MANIFEST = "bundle.json"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileSpec(_Model):
    """One file of the bundle, relative to its folder."""

    file: str
    sha256: str
    num_bytes: int


class GraphSpec(_Model):
    """One graph: its file first, then external data."""

    files: tuple[FileSpec, ...]
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        """Its inputs and outputs."""
        return {**self.inputs, **self.outputs}


class TokenizerSpec(FileSpec):
    """A `tokenizers` file; its encoder takes prompts cut and padded to `max_length`."""

    max_length: int
    pad_id: int
    unk_id: int | None = None


class GoldenSpec(FileSpec):
    """Recorded inputs and outputs of the graphs; see `castmate.engines.golden`."""

    limits: Mapping[str, float] = Field(
        description="Largest relative L2 difference from the record, by graph."
    )


class Profile(_Model):
    """The one table of shapes that export, engines and Triton read."""

    side: Range = Range(min=512, opt=1024, max=1536)
    """Pixels of width or height."""
    images: Range = Range(min=1, opt=1, max=4)
    """Pictures in one call."""
    steps: Range = Range(min=1, opt=28, max=50)
    """Denoise steps."""
    guidance_passes: Range = Range(min=1, opt=1, max=2)
    """2 with a negative prompt, which is the first row."""


class StepCachingSpec(_Model):
    """Largest `change` of a step that is not computed, by the request's `cache`."""

    balanced: Annotated[float, Field(gt=0)]
    fast: Annotated[float, Field(gt=0)]
    chosen_on: str = Field(description="By what measurement, and on which model.")
    by_default: bool = Field(
        default=True,
        description="Whether a request that leaves it to the server skips steps as that is set.",
    )


class ScaleLayout(_Model):
    """How a quantization scheme stores a linear layer, with ONNX's type names."""

    weights: str = Field(description="Type of a stored weight.")
    scales: str = Field(description="Scales of the weights: of what, in which type.")
    block: int | None = Field(
        default=None, description="Weights of one output, side by side, that share a scale."
    )
    inputs: str | None = Field(
        default=None,
        description="Type that inputs are rounded to; they are not where it is absent.",
    )
    input_scales: str | None = Field(default=None, description="Scales of the inputs.")
    rank: int | None = Field(
        default=None, description="Of a branch beside each product, in the precision of the export."
    )


class IdentitySpec(_Model):
    """Calibrates cosines of the `identity` graph: the score is 0 at `another`, 1 at `same`."""

    same: Annotated[float, Field(le=1)] = Field(
        description="Median over two pictures of one character."
    )
    another: Annotated[float, Field(ge=-1)] = Field(
        description="Median over pictures of two characters."
    )
    chosen_on: str = Field(description="On which pictures these were measured.")

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.another >= self.same:
            raise ValueError(f"another {self.another:g} is not below same {self.same:g}")
        return self

    def score(self, cosine: float) -> float:
        """The score of a cosine, from 0 (another character) to 1 (the same)."""
        share = (cosine - self.another) / (self.same - self.another)
        return round(min(1.0, max(0.0, share)), 4)


class LoraSpec(_Model):
    """A LoRA that was fused into the weights."""

    file: str = Field(description="Its name, without a folder.")
    sha256: str
    scale: float


class StyleSpec(FileSpec):
    """A style that requests may name: an .npz file with its factors, by the input that takes them.

    Factors are `[values, rank]`: for each changed layer, first the factor applied to its input,
    then the one that makes its output; bf16 values are stored as their bits.
    """

    lora: LoraSpec = Field(description="What it was made from.")


class StylesSpec(_Model):
    """The styles of a bundle, and which graphs take their factors."""

    rank: Range = Field(description="Of the factors; without a style they are zeros of the least.")
    known: Mapping[str, StyleSpec] = Field(description="By the name that a request gives.")


class Manifest(_Model):
    """The content of `bundle.json`."""

    format: int
    family: str = Field(description="Whose graphs these are; a folder of castmate/families.")
    name: str
    description: str
    engine: str = Field(description="Which runtime loads the graphs.")
    precision: str = Field(description="Of weights and arithmetic, such as 'fp16 weights, fp32'.")
    gpu: str | None = Field(description="The GPU that the plans were built for, if any.")
    licences: Mapping[str, Licence] = Field(description="Of each part of the weights.")
    created_with: Mapping[str, str] = Field(description="Versions of what made it.")
    base: str | None = Field(
        default=None, description="The folder beside this one that has the files missing here."
    )
    graphs: Mapping[str, GraphSpec]
    tokenizers: Mapping[str, TokenizerSpec]
    golden: GoldenSpec | None = Field(
        default=None, description="What an engine is compared with where it runs."
    )
    profile: Profile
    constants: Mapping[str, Any] = Field(
        description="What the pipeline of the family needs to know beside the graphs."
    )
    defaults: Defaults = Field(description="What a request gets for what it leaves out.")
    limits: Mapping[str, Span] = Field(
        default={}, description="Of these parameters; a request beyond them gets a warning."
    )
    step_caching: StepCachingSpec | None = Field(
        default=None, description="Only where steps may be skipped."
    )
    quantization: Mapping[str, ScaleLayout] = Field(
        default={}, description="How each scheme that the weights are stored in has laid them out."
    )
    identity: IdentitySpec | None = Field(
        default=None, description="Only where the `identity` graph is calibrated."
    )
    loras: tuple[LoraSpec, ...] = Field(
        default=(), description="Fused into the weights, in this order."
    )
    styles: StylesSpec | None = Field(
        default=None, description="Only where a request may name a style."
    )

    @property
    def files(self) -> tuple[FileSpec, ...]:
        """Every file, each once."""
        parts = [part for graph in self.graphs.values() for part in graph.files]
        golden = [] if self.golden is None else [self.golden]
        styles = self.styles.known.values() if self.styles else ()
        return (*self.tokenizers.values(), *styles, *golden, *parts)

    @property
    def style_names(self) -> tuple[str, ...]:
        """The allowed values of a request's `style`."""
        return tuple(self.styles.known) if self.styles else ()

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        check_limits(self.defaults, self.limits)
        return self

    @field_validator("base")
    @classmethod
    def _beside(cls, base: str | None) -> str | None:
        if base is not None and (base in ("", ".", "..") or {"/", "\\", "\0"} & set(base)):
            raise ValueError(f"{base!r} is not the name of a folder")
        return base
