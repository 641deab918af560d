"""The denoise loop, and only the loop; knows no family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from castmate.engines.base import Tensor

BeforeStep = Callable[[int], None]
"""Called before each step with its number; may raise to stop."""


@dataclass
class Reuse:
    """What later steps of a picture may reuse from its earlier ones.

    Attributes:
        threshold: The change below which a step is not computed; 0 computes every step.
        kept: Tensors that a transformer keeps from one step to the next, by name.
        computed: How many steps were computed.
    """

    threshold: float = 0.0
    kept: dict[str, Tensor] = field(default_factory=dict)
    computed: int = 0


class Transformer(Protocol):
    """Takes a family's denoise steps."""

    def step(
        self, latents: Tensor, step: Tensor, conditions: Mapping[str, Tensor], reuse: Reuse
    ) -> Tensor:
        """Take one step, or skip most of it.

        Args:
            latents: Noise at first, then the last step's result.
            step: Its number, `[1]` int64.
            conditions: Every other input, the same in each step.
            reuse: This picture's; the transformer updates it.

        Returns:
            The next latents.
        """
        ...


def denoise(
    transformer: Transformer,
    latents: Tensor,
    steps: Sequence[Tensor],
    conditions: Mapping[str, Tensor],
    before_step: BeforeStep,
    threshold: float = 0.0,
) -> tuple[Tensor, int]:
    """Noise to clean latents.

    Args:
        transformer: Takes the family's steps.
        latents: Noise.
        steps: The numbers 0..T-1, each `[1]` int64, on the device.
        conditions: Every other input of the transformer, the same in each step.
        before_step: Called before each step.
        threshold: See `Reuse`.

    Returns:
        The latents, and how many steps were computed.
    """
    reuse = Reuse(threshold)
    for number, step in enumerate(steps):
        before_step(number)
        latents = transformer.step(latents, step, conditions, reuse)
    return latents, reuse.computed
