"""Cuts the character out of a finished picture, with sharp edges and no fringe.

A matte graph sees small views, so its edges are blurred at the size of the picture; they are made
as sharp as the picture again. Pixels at an edge mix in some of the background, which would show as
a fringe on another one, so it is removed from them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from castmate.decoding import OPAQUE
from castmate.pipeline.matte import Matte

Plane = NDArray[np.float32]

_CLEAR, _SOLID = 0.35, 0.85  # blurred alpha up to which nothing, and from which all, is character
_REACH: Final = 3  # pixels of the matte's view within which an edge finds its background
_LEAST: Final = 0.25  # alpha below which a pixel shows too little of its own colour
_MOST_CHANGED: Final = 64.0  # of a channel; a larger change is another colour, not a mixture


def cut_out(picture: NDArray[np.uint8], matte: Matte) -> NDArray[np.uint8] | None:
    """A picture `[H, W, 3]` as `[H, W, 4]`; None if no character is found in it."""
    seen = np.asarray(matte.alpha(Image.fromarray(picture)))
    if (seen >= OPAQUE).sum() < matte.side:
        return None
    share = seen.astype(np.float32) / np.float32(255)
    alpha = np.clip((share - _CLEAR) / (_SOLID - _CLEAR), 0, 1)
    radius = max(2, round(_REACH * max(picture.shape[:2]) / matte.side))
    shown = _unmixed(picture, share, radius)
    shown[alpha <= 0] = 0
    return np.dstack([shown, (255 * alpha).round().astype(np.uint8)])


def _unmixed(picture: NDArray[np.uint8], share: Plane, radius: int) -> NDArray[np.uint8]:
    """The picture with only the character's colour at its edges.

    A pixel of an edge has `share` of the character's colour and the rest of the background's, which
    is the mean of the background around it.
    """
    behind = (share <= 0.02).astype(np.float32)
    near = _mean(behind, radius)
    mixed = (share > 0) & (share < 1) & (near > 0)
    part = np.maximum(share[mixed], _LEAST)
    shown = picture.copy()
    for channel in range(3):
        plane = picture[..., channel].astype(np.float32)
        background = _mean(plane * behind, radius)[mixed] / near[mixed]
        change = (plane[mixed] - background) * (1 - part) / part
        change = np.clip(change, -_MOST_CHANGED, _MOST_CHANGED)
        own = (plane[mixed] + change).round().clip(0, 255)
        shown[..., channel][mixed] = own.astype(np.uint8)
    return shown


def _mean(plane: Plane, radius: int) -> Plane:
    """The mean of the square around each pixel, as far as that lies in the picture."""
    for axis in (0, 1):
        size = plane.shape[axis]
        start = np.zeros_like(plane.take([0], axis), np.float64)
        total = np.concatenate([start, np.cumsum(plane, axis, np.float64)], axis)
        first = np.maximum(np.arange(size) - radius, 0)
        last = np.minimum(np.arange(size) + radius + 1, size)
        count = (last - first).reshape((-1, 1) if axis == 0 else (1, -1))
        plane = ((total.take(last, axis) - total.take(first, axis)) / count).astype(np.float32)
    return plane
