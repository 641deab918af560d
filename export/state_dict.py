"""Published weights against a network's: every key that does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Size, Tensor


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What keeps `found` from being loaded, one sentence a key; empty where it fits."""
    return sentences(
        (key for key in expected if key not in found),
        (key for key in found if key not in expected),
        (
            (key, found[key].shape, tensor.shape)
            for key, tensor in expected.items()
            if key in found and found[key].shape != tensor.shape
        ),
    )


def sentences(
    missing: Iterable[str], unknown: Iterable[str], misshapen: Iterable[tuple[str, Size, Size]]
) -> list[str]:
    """How each kind of difference is put.

    Args:
        missing: Keys that the network has and the file has not.
        unknown: Keys that the file has and the network has not.
        misshapen: Keys with the shape in the file, then the network's.
    """
    return [
        *(f"{key}: missing" for key in missing),
        *(f"{key}: unknown" for key in unknown),
        *(f"{key}: shape {tuple(has)}, expected {tuple(wants)}" for key, has, wants in misshapen),
    ]
