"""Denoise trajectories of a network in torch: what calibration records and verification compares.

The same noise, schedule, framing, loop and step as the served pipeline, so that ranges and pictures
are those that users get.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from export.family import Network, OnStep, family_of
from export.samples import Prompts, Sample


def denoise(
    network: Network,
    sample: Sample,
    prompts: Prompts,
    steps: int,
    on_step: OnStep = lambda step: None,
) -> Tensor:
    """Draw a sample's latents, fp32.

    Args:
        network: On any device, in any dtype.
        sample: What to draw.
        prompts: The tokenizers.
        steps: Denoise steps.
        on_step: Called before each step with its number.
    """
    return family_of(network.family).denoise(network, sample, prompts, steps, on_step)


def decode(network: Network, latents: Tensor) -> np.ndarray:
    """What `denoise` returns to a picture `[H, W, 3]` uint8."""
    return family_of(network.family).decode(network, latents)
