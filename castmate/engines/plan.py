"""A TensorRT plan on disk: what it was built from and for, and why it may not load.

Knows nothing of TensorRT itself: `castmate.engines.tensorrt` runs plans, `export.build` builds
them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from castmate.engines.digests import sha256_of
from castmate.errors import BundleCorrupt, BundleMismatch

PLAN_FORMAT = 3
PLAN_SUFFIX = ".plan"
BUILD_AGAIN = "Build it again: python -m export.build."


class Flavour(StrEnum):
    """Which TensorRT; a plan of one never loads in the other."""

    TENSORRT = "tensorrt"
    """For any NVIDIA GPU; a plan runs on one generation of GPUs, on which it is built."""
    TENSORRT_RTX = "tensorrt_rtx"
    """For RTX GPUs (not Hopper, not B200); plans are built without a GPU."""


class ShapeRange(BaseModel):
    """Smallest, optimal and largest shape of one input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def allows(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape lies within."""
        return len(shape) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )


class LayerCounts(BaseModel):
    """What the builder made of a graph; see `export.layers`.

    Attributes:
        layers: Their number.
        gemms: Matrix products and convolutions outside attentions.
        gemms_reading: How many of these read operands of a type, by TensorRT's name of the type.
        fused_attentions: Attentions in one kernel.
        attentions_reading: How many of these read operands of a type, likewise.
        lone_casts: Kernels that only change a type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int
    gemms: int
    gemms_reading: Mapping[str, int]
    fused_attentions: int
    attentions_reading: Mapping[str, int]
    lone_casts: int


class PlanManifest(BaseModel):
    """The content of `<graph>.plan.json`.

    Attributes:
        format: Version of this file's format.
        graph: The graph's name.
        flavour: Which TensorRT the plan is for.
        tensorrt_version: Version of the library that built it.
        compute_capability: That of the GPU that it is for, such as "8.9".
        onnx_sha256: Hashes of the graph's files from which it was built, joined by `+`.
        profiles: Shapes by input.
        plan_sha256: Hash of the plan.
        num_bytes: Size of the plan.
        weight_bytes: Device memory of its weights.
        activation_bytes: Device memory of one execution context, by profile.
        streams: Whether part of the weights may stay on the host.
        layers: What the builder made of the graph, if that was checked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = PLAN_FORMAT
    graph: str
    flavour: Flavour
    tensorrt_version: str
    compute_capability: str
    onnx_sha256: str
    profiles: tuple[Mapping[str, ShapeRange], ...]
    plan_sha256: str
    num_bytes: int
    weight_bytes: int
    activation_bytes: tuple[int, ...]
    streams: bool = False
    layers: LayerCounts | None = None

    @classmethod
    def read(cls, plan: Path) -> PlanManifest:
        """Read the manifest of a plan, without reading the plan.

        Raises:
            BundleCorrupt: It is missing or half-written.
            BundleMismatch: It was written by other code.
        """
        path = manifest_path(plan)
        try:
            values = json.loads(path.read_bytes())
            found = values.get("format")
        except (OSError, ValueError, AttributeError) as error:
            raise BundleCorrupt(f"{path} cannot be read: {error}. {BUILD_AGAIN}") from None
        if found != PLAN_FORMAT:
            raise BundleMismatch(
                f"{path} has format {found!r}, this version of castmate reads {PLAN_FORMAT}. "
                f"{BUILD_AGAIN}"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise BundleCorrupt(
                f"{path}: `{where}`: {error.errors()[0]['msg']}. {BUILD_AGAIN}"
            ) from None

    @classmethod
    def beside(cls, plan: Path, digest: Callable[[Path], str] = sha256_of) -> PlanManifest:
        """Read the manifest of a plan and check that it belongs to the plan.

        Args:
            plan: The file.
            digest: Computes the SHA-256 of a file.

        Raises:
            BundleCorrupt: One of the two is missing or half-written, or they do not match.
            BundleMismatch: The manifest was written by other code.
        """
        manifest = cls.read(plan)
        if not plan.is_file() or plan.stat().st_size != manifest.num_bytes:
            size = plan.stat().st_size if plan.is_file() else 0
            raise BundleCorrupt(
                f"{plan} holds {size} bytes, its manifest says {manifest.num_bytes}: the build was "
                f"interrupted or the file was changed. {BUILD_AGAIN}"
            )
        if digest(plan) != manifest.plan_sha256:
            raise BundleCorrupt(f"{plan} is not the plan of its manifest. {BUILD_AGAIN}")
        return manifest

    def differences(
        self,
        *,
        flavour: Flavour,
        tensorrt_version: str,
        compute_capability: str,
        onnx_sha256: str | None = None,
        profiles: tuple[Mapping[str, ShapeRange], ...] | None = None,
    ) -> list[str]:
        """How the plan differs from what is wanted; empty if it does not.

        Args:
            flavour: The runtime's.
            tensorrt_version: The runtime's.
            compute_capability: The GPU's, such as "8.9".
            onnx_sha256: That of the graph that it should be built from, if known.
            profiles: The shapes that it should be built for, if known.
        """
        wanted = [
            ("TensorRT flavour", self.flavour.value, flavour.value),
            ("TensorRT version", self.tensorrt_version, tensorrt_version),
            ("GPU compute capability", self.compute_capability, compute_capability),
        ]
        reasons = [
            f"{what}: built for {built}, here is {here}"
            for what, built, here in wanted
            if built != here
        ]
        if onnx_sha256 not in (None, self.onnx_sha256):
            reasons.append("the ONNX graph has changed since")
        if profiles not in (None, self.profiles):
            reasons.append("the shapes profile has changed since")
        return reasons


def manifest_path(plan: Path) -> Path:
    """The path of a plan's manifest."""
    return plan.with_name(f"{plan.name}.json")
