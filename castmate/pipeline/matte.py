"""The `matte` graph of a bundle: finds the pixels of a picture that show its character."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from castmate.decoding import OPAQUE, Box
from castmate.engines.base import Runtime

_CLOSER_BELOW: Final = 0.5  # share of the picture's side
_AROUND: Final = 0.25  # of the box, on each side


class Matte:
    """Finds characters without changing pictures."""

    def __init__(self, runtime: Runtime, side: int) -> None:
        """Load the graph `matte`.

        Args:
            runtime: What runs it.
            side: Side of its square input, in pixels.
        """
        self._runtime, self.side = runtime, side
        self._engine = runtime.load("matte")

    def alpha(self, image: Image.Image) -> Image.Image:
        """How much each pixel of a picture belongs to the character, in one 8-bit channel.

        A character that is small in its picture gets a second, closer look, if the picture has more
        detail than the first look saw.
        """
        alpha = self._look(image)
        box = alpha.point([255 * (value >= OPAQUE) for value in range(256)]).getbbox()
        if box is None or _extent(box) >= _CLOSER_BELOW * max(image.size):
            return alpha
        nearer = _grown(box, image.size)
        if _extent(nearer) < self.side:
            return alpha
        whole = Image.new("L", image.size)
        whole.paste(self._look(image.crop(nearer)), nearer[:2])
        return whole

    def _look(self, image: Image.Image) -> Image.Image:
        view = image.resize((self.side, self.side), Image.Resampling.BILINEAR)
        out = self._engine(images=self._runtime.upload(np.asarray(view)[None]))
        (alpha,) = self._runtime.download(out["alpha"])
        small = Image.fromarray((255 * alpha).round().astype(np.uint8))
        return small.resize(image.size, Image.Resampling.BILINEAR)


def _extent(box: Box) -> int:
    left, top, right, bottom = box
    return max(right - left, bottom - top)


def _grown(box: Box, size: tuple[int, int]) -> Box:
    """The box with a margin around it, within the picture."""
    around = round(_AROUND * _extent(box))
    left, top, right, bottom = box
    width, height = size
    return (
        max(0, left - around),
        max(0, top - around),
        min(width, right + around),
        min(height, bottom + around),
    )
