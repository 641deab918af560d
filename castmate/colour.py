"""Colour profiles: converts pictures to sRGB."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from PIL import Image, ImageCms

_MODES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_GREY_MODES: Final = ("1", "L", "LA", "La", "I")
# A profile that moves no colour by more than this is sRGB under another of its many names.
_SAME: Final = 1


@dataclass(frozen=True)
class ToSrgb:
    """Converts pictures from one profile to sRGB.

    Attributes:
        mode: Pillow's mode of its input; pictures in other modes are converted first.
    """

    mode: str
    _transform: Any

    @classmethod
    def of(cls, profile: bytes | None, mode: str) -> Self | None:
        """The conversion for pictures of `mode`; None if it is unnecessary or impossible.

        A profile that is broken, or made for other channels, is ignored: the pixel values then
        count as sRGB.
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
