"""A family's interface to the pipeline: its loaded graphs, and how they encode a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from castmate.defaults import CompleteRequest
from castmate.engines.base import Array, Runtime, Tensor
from castmate.engines.bundle import Bundle
from castmate.engines.family import family_module
from castmate.images import Reference
from castmate.pipeline.denoise import Transformer
from castmate.pipeline.framing import Framer
from castmate.pipeline.matte import Matte
from castmate.pipeline.safety import SafetyChecker
from castmate.pipeline.stopwatch import Stopwatch
from castmate.schema import FramedReference


@dataclass(frozen=True)
class Encoded:
    """A request in the transformer's terms, the same for every step of every picture.

    Attributes:
        noise_shape: Shape of one picture's latents.
        conditions: Inputs of the transformer, on the device.
        warnings: What the encoders could not read.
        reference: How the reference was framed, if the family frames.
    """

    noise_shape: tuple[int, ...]
    conditions: Mapping[str, Tensor]
    warnings: tuple[str, ...] = ()
    reference: FramedReference | None = None


class Network(Protocol):
    """The loaded graphs of a bundle; one request at a time, not thread-safe."""

    @property
    def transformer(self) -> Transformer:
        """Takes the denoise steps."""
        ...

    @property
    def safety(self) -> SafetyChecker | None:
        """Flags pictures, if the family has a checker."""
        ...

    @property
    def matte(self) -> Matte | None:
        """Finds the character in a picture, if the bundle has a matte."""
        ...

    @property
    def framer(self) -> Framer:
        """Finds the character in a reference."""
        ...

    def encode(self, request: CompleteRequest, reference: Reference, watch: Stopwatch) -> Encoded:
        """Prepare everything that all pictures of the request share, timing each stage."""
        ...

    def decode(self, latents: Tensor) -> Array:
        """Clean latents to pictures `[B, H, W, 3]` uint8, at least as large as requested."""
        ...

    def remember(self, reference: Reference) -> None:
        """Encode a character now, so that its first picture skips that."""
        ...

    def cache_counts(self) -> dict[str, tuple[int, int]]:
        """Hits and misses of each cache since it was made."""
        ...


class OpenNetwork(Protocol):
    """`open_network` of the module `network` of every family."""

    def __call__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        *,
        prompt_cache_bytes: int,
        subject_cache_bytes: int,
    ) -> Network:
        """Load every graph.

        Raises:
            BundleError: A graph cannot be loaded.
        """
        ...


def open_network(
    bundle: Bundle, runtime: Runtime, *, prompt_cache_bytes: int, subject_cache_bytes: int
) -> Network:
    """Load the graphs of a bundle through its family.

    Args:
        bundle: The model.
        runtime: Runs its graphs.
        prompt_cache_bytes: Memory for everything computed from prompts.
        subject_cache_bytes: Memory for encoded references.

    Raises:
        BundleError: A graph cannot be loaded.
    """
    load: OpenNetwork = family_module(bundle.manifest.family, "network").open_network
    return load(
        bundle,
        runtime,
        prompt_cache_bytes=prompt_cache_bytes,
        subject_cache_bytes=subject_cache_bytes,
    )
