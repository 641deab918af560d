"""Noise from a counter-based host generator, so that a seed means the same on every device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from castmate.schema import MAX_SEED


def image_seeds(seed: int, num_images: int) -> list[int]:
    """The seed of each picture: `seed + i`, wrapping around after the largest seed."""
    return [(seed + i) % (MAX_SEED + 1) for i in range(num_images)]


def gaussian_noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal noise that depends only on `seed` and `shape`.

    Philox-4x64 (Salmon et al., 2011) keyed by the seed, counter from 0, and the Box-Muller
    transform in float64: both are fixed by their definitions, whereas numpy reserves the right to
    change `Generator.standard_normal`.
    """
    count = int(np.prod(shape))
    pairs = (count + 1) // 2
    raw = np.random.Philox(key=seed).random_raw(2 * pairs)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2 * np.log(uniform[:pairs]))
    angle = 2 * np.pi * uniform[pairs:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return normal[:count].reshape(shape).astype(np.float32)
