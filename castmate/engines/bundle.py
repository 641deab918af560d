"""A model on disk: `bundle.json`, its graphs and tokenizers, checked before anything is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from castmate.errors import BundleCorrupt, BundleMismatch, BundleNotFound

FORMAT = 1
MANIFEST = "bundle.json"
WHOLE = "transformer"

# Every graph of a bundle, its input names and its output names: export writes these, the pipeline
# binds these. Shapes and meanings are in export/graphs.py.
GRAPHS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text_encoder": (("input_ids",), ("pooled_projections",)),
    "text_encoder_2": (("input_ids",), ("prompt_embeds",)),
    "image_encoder": (("crops",), ("low_res_deep", "low_res_shallow", "high_res_deep")),
    "image_encoder_2": (("crops",), ("low_res_deep_2", "low_res_shallow_2", "high_res_deep_2")),
    "subject_projector": (
        (
            "low_res_deep",
            "low_res_shallow",
            "high_res_deep",
            "low_res_deep_2",
            "low_res_shallow_2",
            "high_res_deep_2",
        ),
        ("subject_features",),
    ),
    "subject_resampler": (("subject_features", "timesteps"), ("subject_embeds",)),
    "transformer": (
        (
            "latents",
            "step",
            "sigmas",
            "guidance",
            "true_cfg_scale",
            "prompt_embeds",
            "pooled_projections",
            "subject_embeds",
            "subject_scale",
            "rotary_emb_cos",
            "rotary_emb_sin",
        ),
        ("next_latents",),
    ),
    "vae_decoder": (("latents",), ("images",)),
    "safety_checker": (("images",), ("scores", "has_nsfw")),
}

# A bundle with step caching holds these three instead of `transformer`, so that no weight is there
# twice: a step whose `head` reports a small `change` may skip `tail` and reuse the last
# `tail_residual`; one that runs all three is a whole step.
STEP_CACHING_GRAPHS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "transformer_head": (
        (
            "latents",
            "step",
            "sigmas",
            "guidance",
            "prompt_embeds",
            "pooled_projections",
            "subject_embeds",
            "subject_scale",
            "rotary_emb_cos",
            "rotary_emb_sin",
            "previous_head_residual",
        ),
        ("hidden_states", "encoder_hidden_states", "temb", "head_residual", "change"),
    ),
    "transformer_tail": (
        (
            "hidden_states",
            "encoder_hidden_states",
            "temb",
            "step",
            "subject_embeds",
            "subject_scale",
            "rotary_emb_cos",
            "rotary_emb_sin",
        ),
        ("tail_residual",),
    ),
    "transformer_finish": (
        (
            "latents",
            "step",
            "sigmas",
            "true_cfg_scale",
            "hidden_states",
            "tail_residual",
            "temb",
        ),
        ("next_latents",),
    ),
}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileSpec(_Model):
    """One file of the bundle, relative to its folder."""

    file: str
    sha256: str
    num_bytes: int


class TensorSpec(_Model):
    """A graph's input or output; a dimension is a number or the name of a dynamic one."""

    dtype: str
    shape: tuple[int | str, ...]


class GraphSpec(_Model):
    """One graph: its file first, then external data."""

    files: tuple[FileSpec, ...]
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


class TokenizerSpec(FileSpec):
    """A `tokenizers` file and how its encoder wants prompts: cut and padded to `max_length`."""

    max_length: int
    pad_id: int
    unk_id: int | None = None


class Range(_Model):
    """Smallest, tuned and largest value of a dynamic dimension."""

    min: int
    opt: int
    max: int


class Profile(_Model):
    """The one table of shapes that export, engines and Triton read."""

    side: Range = Range(min=512, opt=1024, max=1536)
    """Pixels of width or height."""
    images: Range = Range(min=1, opt=1, max=4)
    """Pictures in one call."""
    steps: Range = Range(min=1, opt=28, max=50)
    """Denoise steps."""
    guidance_passes: Range = Range(min=1, opt=1, max=2)
    """2 with a negative prompt, which comes first."""


class SchedulerSpec(_Model):
    """FLUX's resolution-dependent shift."""

    base_image_seq_len: int
    max_image_seq_len: int
    base_shift: float
    max_shift: float


class StepCachingSpec(_Model):
    """Largest `change` of a step that is not computed, by the request's `cache`."""

    balanced: Annotated[float, Field(gt=0)]
    fast: Annotated[float, Field(gt=0)]
    chosen_on: str = Field(description="By what measurement, and on which model.")


class Manifest(_Model):
    """The content of `bundle.json`."""

    format: int
    name: str
    description: str
    engine: str = Field(description="Which runtime loads the graphs.")
    precision: str = Field(description="Of weights and arithmetic, such as 'fp16 weights, fp32'.")
    gpu: str | None = Field(description="The GPU that the plans were built for, if any.")
    created_with: Mapping[str, str] = Field(description="Versions of what made it.")
    graphs: Mapping[str, GraphSpec]
    text_encoder: TokenizerSpec
    text_encoder_2: TokenizerSpec
    profile: Profile
    scheduler: SchedulerSpec
    pixels_per_token: Annotated[int, Field(gt=0)] = Field(
        description="Side of the square of pixels that one packed latent stands for."
    )
    latent_channels: int = Field(description="Channels of a packed latent.")
    rope_axes_dim: tuple[int, int, int]
    crop_px: int = Field(description="Side of one crop of the reference.")
    safety_px: int = Field(description="Side of the picture that the safety checker looks at.")
    step_caching: StepCachingSpec | None = Field(
        default=None, description="Only where the transformer is there in three parts."
    )


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest fits this code; its files are checked as they are opened."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, name_or_path: str | Path) -> Self:
        """Find a bundle and read its manifest.

        Args:
            name_or_path: The name of a shipped bundle, or a folder with a `bundle.json`.

        Raises:
            BundleNotFound: There is none.
            BundleCorrupt: Its manifest cannot be read.
            BundleMismatch: It was made for other code.
        """
        path = locate(name_or_path)
        manifest = path / MANIFEST
        try:
            values = json.loads(manifest.read_bytes())
            found = values.get("format")
        except (OSError, ValueError, AttributeError) as error:
            raise BundleCorrupt(f"{manifest} cannot be read: {error}. Export it again.") from None
        if found != FORMAT:
            raise BundleMismatch(
                f"{manifest} has format {found!r}, this version of castmate reads format {FORMAT}. "
                "Export it again, or install the version of castmate that made it: "
                f"{values.get('created_with', {}).get('castmate', 'unknown')}."
            )
        try:
            bundle = cls(path, Manifest.model_validate(values))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise BundleCorrupt(
                f"{manifest}: `{where}`: {first['msg']}. Export it again."
            ) from None
        bundle._check_graphs()
        return bundle

    def file(self, spec: FileSpec) -> Path:
        """The checked path of one of the bundle's files.

        Raises:
            BundleCorrupt: It is missing, or its bytes are not those that the manifest names.
        """
        path = self.path / spec.file
        if not path.is_file():
            raise BundleCorrupt(f"{path} is missing. Install or export bundle {self.name!r} again.")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != spec.sha256:
            raise BundleCorrupt(
                f"{path} was changed: its sha256 is {digest[:12]}..., {MANIFEST} says "
                f"{spec.sha256[:12]}.... Install or export bundle {self.name!r} again."
            )
        return path

    def check(self) -> None:
        """Check every file.

        Raises:
            BundleCorrupt: Names the first bad one.
        """
        for spec in (self.manifest.text_encoder, self.manifest.text_encoder_2):
            self.file(spec)
        for graph in self.manifest.graphs.values():
            for part in graph.files:
                self.file(part)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def has_step_caching(self) -> bool:
        """Whether the transformer is there in three parts, with thresholds."""
        return self.manifest.step_caching is not None

    def _check_graphs(self) -> None:
        present = self.manifest.graphs
        for name, (inputs, outputs) in graphs_of(self.has_step_caching).items():
            if (graph := present.get(name)) is None:
                raise BundleMismatch(
                    f"Bundle {self.name!r} has no graph {name!r}. Export it again."
                )
            if set(graph.inputs) != set(inputs) or set(graph.outputs) != set(outputs):
                raise BundleMismatch(
                    f"Graph {name!r} of bundle {self.name!r} takes {', '.join(graph.inputs)} and "
                    f"gives {', '.join(graph.outputs)}; this version of castmate binds "
                    f"{', '.join(inputs)} and {', '.join(outputs)}. Export it again."
                )


def graphs_of(
    step_caching: bool,
) -> Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Every graph of a bundle with the transformer whole, or in the parts of step caching."""
    if not step_caching:
        return GRAPHS
    return {name: names for name, names in GRAPHS.items() if name != WHOLE} | dict(
        STEP_CACHING_GRAPHS
    )


def shipped() -> list[str]:
    """Names of the bundles in this package."""
    return sorted(path.parent.name for path in _home().glob(f"*/{MANIFEST}"))


def locate(name_or_path: str | Path) -> Path:
    """The folder of a bundle.

    Raises:
        BundleNotFound: Neither a shipped name nor a folder with a manifest.
    """
    for path in (_home() / name_or_path, Path(name_or_path).expanduser()):
        if (path / MANIFEST).is_file():
            return path.resolve()
    raise BundleNotFound(
        f"There is no bundle {str(name_or_path)!r}: neither a shipped one "
        f"({', '.join(shipped()) or 'none'}) nor a folder with a {MANIFEST}. Name one of these in "
        "CASTMATE_BUNDLE or with --bundle."
    )


def _home() -> Path:
    return Path(str(files("castmate"))) / "bundles"
