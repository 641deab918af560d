"""A bundle's transformer: one whole graph, or three parts of which a step may skip one.

If the first block changes the picture much as it did in the last computed step, the step reuses
what all other blocks added then (First-Block Cache). The device measures the change; the host reads
that one number a step, or nothing if every step is computed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from castmate.engines.base import Runtime, Tensor
from castmate.families.instantcharacter.graphs import PARTS, WHOLE
from castmate.pipeline.denoise import Reuse

HEAD, TAIL, FINISH = PARTS
Inputs = Mapping[str, Collection[str]]
"""The inputs of each graph of a bundle: some take the factors of a style."""


class WholeTransformer:
    """One graph: velocity, true-CFG mix and Euler update; it cannot skip steps."""

    def __init__(self, runtime: Runtime, inputs: Inputs) -> None:
        self._graphs = _Graphs(runtime, inputs, WHOLE)

    def step(
        self, latents: Tensor, step: Tensor, conditions: Mapping[str, Tensor], reuse: Reuse
    ) -> Tensor:
        """See `castmate.pipeline.denoise.Transformer`."""
        reuse.computed += 1
        values = {**conditions, "latents": latents, "step": step}
        return self._graphs.run(WHOLE, values)["next_latents"]


class CachedTransformer:
    """Three graphs; a skipped step runs the first and the last."""

    def __init__(self, runtime: Runtime, inputs: Inputs) -> None:
        self._runtime = runtime
        self._graphs = _Graphs(runtime, inputs, *PARTS)

    def step(
        self, latents: Tensor, step: Tensor, conditions: Mapping[str, Tensor], reuse: Reuse
    ) -> Tensor:
        """See `castmate.pipeline.denoise.Transformer`.

        The conditions hold zeros as `previous_head_residual`: relative to zero every change is
        infinite, so the first step is computed.
        """
        values = {**conditions, **reuse.kept, "latents": latents, "step": step}
        values |= self._graphs.run(HEAD, values)
        if not (reuse.threshold and self._change(values) < reuse.threshold):
            values |= self._graphs.run(TAIL, values)
            reuse.computed += 1
            if reuse.threshold:
                reuse.kept = {
                    "previous_head_residual": values["head_residual"],
                    "tail_residual": values["tail_residual"],
                }
        return self._graphs.run(FINISH, values)["next_latents"]

    def _change(self, values: Mapping[str, Tensor]) -> float:
        return float(self._runtime.download(values["change"])[0])


class _Graphs:
    """Loaded graphs, each called with the inputs that the manifest names."""

    def __init__(self, runtime: Runtime, inputs: Inputs, *names: str) -> None:
        self._engines = {name: runtime.load(name) for name in names}
        self._inputs = {name: inputs[name] for name in names}

    def run(self, name: str, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self._engines[name](**{key: values[key] for key in self._inputs[name]})
