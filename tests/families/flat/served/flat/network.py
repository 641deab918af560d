"""A request to a colour, and latents to pixels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from castmate.engines.base import Array, Runtime, Tensor
from castmate.engines.bundle import Bundle
from castmate.images import Reference
from castmate.pipeline.denoise import Reuse
from castmate.pipeline.network import Encoded
from castmate.pipeline.stopwatch import Stopwatch
from castmate.schema import GenerateRequest


def open_network(
    bundle: Bundle, runtime: Runtime, *, prompt_cache_bytes: int, subject_cache_bytes: int
) -> Flat:
    return Flat(bundle, runtime)


class Flat:
    safety = None
    matte = None

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self._runtime = runtime
        self._cell: int = bundle.manifest.constants["pixels_per_cell"]
        self._step, self._decode = runtime.load("transformer"), runtime.load("vae_decoder")

    @property
    def transformer(self) -> Flat:
        return self

    def encode(self, request: GenerateRequest, reference: Reference, watch: Stopwatch) -> Encoded:
        with watch("subject"):
            colour = np.asarray(reference.image.resize((1, 1)), np.float32)[0, 0] / 255
        rows, columns = -(-request.height // self._cell), -(-request.width // self._cell)
        return Encoded((1, rows, columns, 3), {"colour": self._runtime.upload(colour)}, ("flat",))

    def step(
        self, latents: Tensor, step: Tensor, conditions: Mapping[str, Tensor], reuse: Reuse
    ) -> Tensor:
        reuse.computed += 1
        return self._step(latents=latents, step=step, **conditions)["next_latents"]

    def decode(self, latents: Tensor) -> Array:
        return self._runtime.download(self._decode(latents=latents)["images"])

    def remember(self, reference: Reference) -> None: ...

    def cache_counts(self) -> dict[str, tuple[int, int]]:
        return {}
