"""Modulations of every step, from the pooled prompt, the guidance and the timestep."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from castmate.engines.base import Runtime, Tensor
from castmate.families.instantcharacter.prompt import EncodedPrompt
from castmate.pipeline.cache import SizedCache


class ModulationEncoder:
    """Computes the modulations of all steps in one batch and caches the most recent ones."""

    def __init__(self, runtime: Runtime, cache: SizedCache[Tensor]) -> None:
        """Load the graph.

        Args:
            runtime: Runs it.
            cache: Keeps modulations, among other things.
        """
        self._runtime, self._cache = runtime, cache
        self._modulation = runtime.load("modulation")

    def encode(
        self,
        prompt: EncodedPrompt,
        guidance_scale: float,
        timesteps: NDArray[np.float32],
        style: str,
        factors: Mapping[str, Tensor],
    ) -> Tensor:
        """Modulations `[T, G, A]`.

        Args:
            prompt: With a row for each guidance pass.
            guidance_scale: The scale of the distilled guidance.
            timesteps: `[T]`, those of the schedule.
            style: Name of the style.
            factors: The style's, if the graph takes any.
        """
        key = (prompt.texts, guidance_scale, timesteps.tobytes(), style if factors else "")
        return self._cache.get_or_make(
            key, lambda: self._encode(prompt, guidance_scale, timesteps, factors)
        )

    def _encode(
        self,
        prompt: EncodedPrompt,
        guidance_scale: float,
        timesteps: NDArray[np.float32],
        factors: Mapping[str, Tensor],
    ) -> tuple[Tensor, int]:
        runtime = self._runtime
        out = self._modulation(
            pooled_projections=prompt.pooled_projections,
            guidance=runtime.upload(np.array([guidance_scale], np.float32)),
            timesteps=runtime.upload(timesteps),
            **factors,
        )["modulation"]
        return out, runtime.num_bytes(out)
