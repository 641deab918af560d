"""Two editions of the demo world: the one that the shipped weights know, and the one in training.

The second edition only appends values to the first one's lists, so the first one's class numbers
stay valid. This file can be deleted once weights of the second edition are shipped.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

Value = TypeVar("Value", bound=StrEnum)


class Edition(StrEnum):
    """What a set of weights was trained to draw."""

    FIRST = "first"
    SECOND = "second"


SHIPPED = Edition.FIRST
"""The edition of the weights in the bundle, and of the judge beside this file."""

_FIRST = {
    "Species": 5,
    "HairColor": 6,
    "HairStyle": 4,
    "Skin": 3,
    "EyeColor": 4,
    "Outfit": 4,
    "OutfitColor": 6,
    "Accessory": 4,
    "Pose": 5,
    "Scene": 8,
}


def values(kind: type[Value], edition: Edition) -> list[Value]:
    """The values of an attribute that an edition knows, in the order of their class numbers."""
    every = list(kind)
    return every[: _FIRST[kind.__name__]] if edition is Edition.FIRST else every
