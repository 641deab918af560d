"""Noise depends on the seed and the shape alone, and is Gaussian."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from castmate.pipeline.noise import gaussian_noise, image_seeds
from castmate.schema import MAX_SEED

seeds = st.integers(0, MAX_SEED)


def test_a_seed_means_these_numbers_on_every_machine() -> None:
    """A change here changes every picture that a user has ever noted the seed of."""
    expected = [-0.4334718, 1.354922, -0.4333872, 0.2930280, 0.7767051, -1.2436686]
    np.testing.assert_allclose(gaussian_noise(7, (6,)), expected, rtol=1e-6)


@given(seeds)
def test_the_same_seed_gives_the_same_noise_and_its_neighbour_another(seed: int) -> None:
    noise = gaussian_noise(seed, (4, 4, 8))
    np.testing.assert_array_equal(noise, gaussian_noise(seed, (4, 4, 8)))
    other = gaussian_noise((seed + 1) % (MAX_SEED + 1), (4, 4, 8))
    assert not np.any(noise == other)


@given(seeds, st.integers(1, 33))
def test_noise_has_the_shape_asked_for_and_is_finite_fp32(seed: int, count: int) -> None:
    noise = gaussian_noise(seed, (1, count, 3))
    assert noise.shape == (1, count, 3)
    assert noise.dtype == np.float32
    assert np.isfinite(noise).all()


def test_noise_is_standard_normal() -> None:
    noise = np.sort(gaussian_noise(123, (1_000_000,)))
    assert abs(noise.mean()) < 0.005
    assert abs(noise.std() - 1) < 0.005
    for share, quantile in ((0.0013499, -3), (0.1586553, -1), (0.5, 0), (0.9772499, 2)):
        assert abs(np.searchsorted(noise, quantile) / noise.size - share) < 0.002


def test_pictures_of_a_request_count_up_from_its_seed_and_wrap_at_the_largest() -> None:
    assert image_seeds(7, 3) == [7, 8, 9]
    assert image_seeds(MAX_SEED, 2) == [MAX_SEED, 0]
