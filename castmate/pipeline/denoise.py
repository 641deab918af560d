"""The denoise loop, and only the loop: every step whole, or some of them cached.

A step whose first block changes the picture much as it did in the last computed step reuses what
all the other blocks added then (First-Block Cache). The device measures the change; the host reads
that one number a step, and nothing where every step is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from castmate.engines.base import Runtime, Tensor
from castmate.engines.bundle import STEP_CACHING_GRAPHS, WHOLE, Bundle

BeforeStep = Callable[[int], None]
"""Called before each step with its number; may raise to stop."""


class Denoiser(Protocol):
    """A loaded transformer."""

    def __call__(
        self,
        latents: Tensor,
        steps: Sequence[Tensor],
        conditions: Mapping[str, Tensor],
        on_step: BeforeStep,
        *,
        rows: tuple[int, int] = (1, 1),
        threshold: float = 0.0,
    ) -> tuple[Tensor, int]:
        """Noise to clean latents.

        Args:
            latents: `[B, h, w, C]` noise.
            steps: The numbers 0..T-1, each `[1]` int64 on the device.
            conditions: Every other input of the `transformer` graph, the same in each step.
            on_step: Hears of every step.
            rows: Guidance passes, and tokens of the picture.
            threshold: The change below which a step is not computed; 0 computes every one.

        Returns:
            The latents, and how many steps were computed.
        """
        ...


def open_denoiser(bundle: Bundle, runtime: Runtime) -> Denoiser:
    """Load the transformer as the bundle has it.

    Raises:
        BundleError: A graph cannot be loaded.
    """
    return InParts(bundle, runtime) if bundle.has_step_caching else Whole(runtime)


class Whole:
    """One graph: velocity, true-CFG mix and Euler update; it can skip nothing."""

    def __init__(self, runtime: Runtime) -> None:
        self._transformer = runtime.load(WHOLE)

    def __call__(
        self,
        latents: Tensor,
        steps: Sequence[Tensor],
        conditions: Mapping[str, Tensor],
        on_step: BeforeStep,
        *,
        rows: tuple[int, int] = (1, 1),
        threshold: float = 0.0,
    ) -> tuple[Tensor, int]:
        """See `Denoiser`."""
        for number, step in enumerate(steps):
            on_step(number)
            latents = self._transformer(latents=latents, step=step, **conditions)["next_latents"]
        return latents, len(steps)


class InParts:
    """Three graphs, of which a cached step runs the first and the last."""

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self._runtime = runtime
        self._parts = {name: runtime.load(name) for name in STEP_CACHING_GRAPHS}
        head = bundle.manifest.graphs["transformer_head"]
        self._channels = int(head.inputs["previous_head_residual"].shape[-1])
        self._nothing: Mapping[tuple[int, int], Tensor] = {}

    def __call__(
        self,
        latents: Tensor,
        steps: Sequence[Tensor],
        conditions: Mapping[str, Tensor],
        on_step: BeforeStep,
        *,
        rows: tuple[int, int] = (1, 1),
        threshold: float = 0.0,
    ) -> tuple[Tensor, int]:
        """See `Denoiser`."""
        values = {
            **conditions,
            "latents": latents,
            # To nothing, every change is infinite: the first step is computed.
            "previous_head_residual": self._zeros(rows),
        }
        computed = 0
        for number, step in enumerate(steps):
            on_step(number)
            values["step"] = step
            values |= self._run("transformer_head", values)
            if not (threshold and self._change(values) < threshold):
                values |= self._run("transformer_tail", values)
                computed += 1
                if threshold:
                    values["previous_head_residual"] = values["head_residual"]
            values["latents"] = self._run("transformer_finish", values)["next_latents"]
        return values["latents"], computed

    def _run(self, part: str, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        names, _ = STEP_CACHING_GRAPHS[part]
        return self._parts[part](**{name: values[name] for name in names})

    def _zeros(self, rows: tuple[int, int]) -> Tensor:
        if rows not in self._nothing:  # kept: at full size it is 50 MB to upload
            zeros = np.zeros((*rows, self._channels), np.float32)
            self._nothing = {rows: self._runtime.upload(zeros)}
        return self._nothing[rows]

    def _change(self, values: Mapping[str, Tensor]) -> float:
        return float(self._runtime.download(values["change"])[0])
