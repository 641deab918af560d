"""The noise schedule and the RoPE tables, which depend only on size and number of steps."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from castmate.families.instantcharacter.constants import RopeSquare, SchedulerSpec

ROPE_THETA = 10_000.0


def flow_match_sigmas(
    num_inference_steps: int, num_image_tokens: int, spec: SchedulerSpec
) -> NDArray[np.float32]:
    """FLUX's schedule: sigmas `[T + 1]` from 1 to 0, shifted to more noise for larger pictures.

    Equal to diffusers' `FlowMatchEulerDiscreteScheduler` with dynamic shifting, fed as
    `FluxPipeline` feeds it: `linspace(1, 1 / T, T)` and mu linear in the number of image tokens.
    """
    slope = (spec.max_shift - spec.base_shift) / (spec.max_image_seq_len - spec.base_image_seq_len)
    mu = spec.base_shift + slope * (num_image_tokens - spec.base_image_seq_len)
    linear = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
    shifted = math.exp(mu) / (math.exp(mu) + (1 / linear - 1))
    return np.append(shifted, 0.0).astype(np.float32)


def timesteps_of(sigmas: NDArray[np.float32]) -> NDArray[np.float32]:
    """The timestep of every step `[T]`, on the scale 0..1000, from sigmas `[T + 1]`."""
    return sigmas[:-1] * np.float32(1000)


def rotary_tables(
    axes_dim: tuple[int, int, int],
    num_text_tokens: int,
    height: int,
    width: int,
    square: RopeSquare | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """cos and sin `[L + height * width, sum(axes_dim)]` of FLUX's three-axis RoPE.

    Text tokens stand at position 0 of every axis; the image token of row y and column x stands at
    (0, y, x). Frequencies are computed in float64 and repeated in pairs, as diffusers'
    `FluxPosEmbed` does.

    Args:
        axes_dim: Channels of each axis.
        num_text_tokens: L.
        height: Rows of packed latents.
        width: Columns of packed latents.
        square: Measures positions in this square instead, so that a figure has the same
            coordinates in a picture of any size.
    """
    rows, columns = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
    if square is not None:
        side = min(height, width)
        unit = square.units / side
        rows = (rows + 0.5 - (height - side) * square.above) * unit - 0.5
        columns = (columns + 0.5 - (width - side) / 2) * unit - 0.5
    positions = np.zeros((num_text_tokens + height * width, 3))
    positions[num_text_tokens:, 1] = np.repeat(rows, width)
    positions[num_text_tokens:, 2] = np.tile(columns, height)
    angles = np.concatenate(
        [
            np.outer(positions[:, axis], ROPE_THETA ** (-np.arange(0, dim, 2) / dim))
            for axis, dim in enumerate(axes_dim)
        ],
        axis=1,
    ).repeat(2, axis=1)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
