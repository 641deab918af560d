"""The denoise loop, and only the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from castmate.engines.base import Engine, Tensor


def denoise(
    transformer: Engine,
    latents: Tensor,
    steps: Sequence[Tensor],
    conditions: Mapping[str, Tensor],
    on_step: Callable[[int], None],
) -> Tensor:
    """Noise to clean latents.

    One call of the graph is one step whole: velocity, true-CFG mix and Euler update, so the host
    moves nothing but the number of the step.

    Args:
        transformer: The `transformer` graph.
        latents: `[B, h, w, C]` noise.
        steps: The numbers 0..T-1, each `[1]` int64 on the device.
        conditions: Every other input of the graph, the same in each step.
        on_step: Called before each step with its number; may raise to stop.
    """
    for number, step in enumerate(steps):
        on_step(number)
        latents = transformer(latents=latents, step=step, **conditions)["next_latents"]
    return latents
