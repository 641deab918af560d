"""Colour profiles: whatever a picture's numbers mean, afterwards they mean sRGB."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from PIL import Image, ImageCms

_MODES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_GREY_MODES: Final = ("1", "L", "LA", "La", "I")
# A profile that moves no colour by more is sRGB under one of its many names.
_SAME: Final = 1


@dataclass(frozen=True)
class ToSrgb:
    """Converts pictures from one profile to sRGB.

    Attributes:
        mode: That of the pictures it takes; others are converted to it first.
    """

    mode: str
    _transform: Any

    @classmethod
    def of(cls, profile: bytes | None, mode: str) -> Self | None:
        """What converts a picture of `mode`; None where nothing needs to be, or nothing can be.

        A profile that is broken, or made for other channels, decides nothing: the numbers are then
        taken as they are.
        """
        if not profile:
            return None
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            own_mode = _MODES[source.profile.xcolor_space.strip()]
            if (own_mode == "CMYK") != (mode == "CMYK"):
                return None
            if own_mode == "L" and not mode.startswith(_GREY_MODES):
                return None
            transform = ImageCms.buildTransform(
                source, ImageCms.createProfile("sRGB"), own_mode, "RGB"
            )
            made = cls(own_mode, transform)
            return None if own_mode != "CMYK" and made._changes_nothing() else made
        except (ImageCms.PyCMSError, KeyError, OSError, TypeError, ValueError):
            return None

    def __call__(self, image: Image.Image) -> Image.Image:
        """The picture in sRGB."""
        return ImageCms.applyTransform(image.convert(self.mode), self._transform)  # type: ignore[return-value]

    def _changes_nothing(self) -> bool:
        levels = range(0, 256, 17)
        colours = (
            [(v, v, v) for v in levels] if self.mode == "L" else itertools.product(levels, repeat=3)
        )
        before = np.array([*colours], np.uint8)[None]
        after = np.asarray(self(Image.fromarray(before)))
        return bool(np.abs(after.astype(int) - before).max() <= _SAME)
