"""Cuts a character out of its picture, so that its size in the picture makes no difference.

The geometry is that of InstantCharacter's own demo: the box of the mask, with everything outside
the mask white. The mask comes from the picture itself (transparency, a plain background) or from a
network, see `castmate.pipeline.framing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from castmate.decoding import OPAQUE, Box
from castmate.images import Reference
from castmate.schema import FramedReference

Mask = NDArray[np.bool_]

_TOLERANCE: Final = 20  # of a channel; JPEG changes a plain colour by less
_PLAIN_SHARE: Final = 0.97  # of a side of the picture
_PLAIN_SIDES: Final = 3  # a bust touches the lower edge, yet its background is plain
_SMALLEST_PX: Final = 16  # longer side of a character; anything smaller is dust
_SPREAD_PX: Final = 256  # longer side of the view in which a background is traced


@dataclass(frozen=True)
class Cutout:
    """A character in its picture.

    Attributes:
        image: The picture, white outside the character.
        box: Where the character is.
        whitened: Whether `image` differs from the picture.
    """

    image: Image.Image
    box: Box
    whitened: bool


@dataclass(frozen=True)
class Framed:
    """A reference as the image encoders see it.

    Attributes:
        image: The part that was taken, on white.
        reference: Which part of the reference it is, and how it was found.
        warnings: What was requested but not done.
    """

    image: Image.Image
    reference: FramedReference
    warnings: tuple[str, ...] = ()


def by_transparency(reference: Reference) -> Cutout | None:
    """The character of a picture with transparency, which `decode` has put on white."""
    return _cutout(reference.image, reference.cutout, whitened=False)


def by_background(image: Image.Image) -> Cutout | None:
    """The character on a background of one colour, or None if the background is not plain."""
    pixels = np.asarray(image)
    if (color := _plain_color(pixels)) is None:
        return None
    near = _near(pixels, color)
    box = _box(~near)
    if (255 - color <= _TOLERANCE).all():
        return _cutout(image, box, whitened=False)
    return _cutout(_on_white(pixels, ~(near & _outside(near))), box, whitened=True)


def by_alpha(image: Image.Image, alpha: Image.Image) -> Cutout | None:
    """The character where a network sees it.

    Args:
        image: The picture.
        alpha: Of the same size, in one 8-bit channel.
    """
    mask = np.asarray(alpha) >= OPAQUE
    return _cutout(_on_white(np.asarray(image), mask), _box(mask), whitened=True)


Margins = tuple[float, float]
"""White above and below a character, as shares of its longer side; their mean at its sides."""


def with_margins(image: Image.Image, box: Box, margins: Margins) -> Image.Image:
    """A part of a picture with white around it.

    Args:
        image: The picture.
        box: Which part.
        margins: How much.
    """
    part = image.crop(box)
    above, below = (round(margin * max(part.size)) for margin in margins)
    beside = (above + below) // 2
    size = (part.width + 2 * beside, part.height + above + below)
    framed = Image.new("RGB", size, "white")
    framed.paste(part, (beside, above))
    return framed


def _cutout(image: Image.Image, box: Box | None, *, whitened: bool) -> Cutout | None:
    if box is None or max(box[2] - box[0], box[3] - box[1]) < _SMALLEST_PX:
        return None
    return Cutout(image, box, whitened)


def _plain_color(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The colour of the picture's border, if the border has one colour."""
    depth = max(1, min(pixels.shape[:2]) // 100)
    sides = [pixels[:depth], pixels[-depth:], pixels[:, :depth], pixels[:, -depth:]]
    border = np.concatenate([side.reshape(-1, 3) for side in sides])
    color: NDArray[np.uint8] = np.median(border, axis=0).astype(np.uint8)
    plain = [_near(side, color).mean() >= _PLAIN_SHARE for side in sides]
    return color if sum(plain) >= _PLAIN_SIDES else None


def _near(pixels: NDArray[np.uint8], color: NDArray[np.uint8]) -> Mask:
    """Which pixels roughly have a colour; by channel, since pictures may be large."""
    near = np.ones(pixels.shape[:2], np.bool_)
    for channel, value in enumerate(color.tolist()):
        low, high = max(0, value - _TOLERANCE), min(255, value + _TOLERANCE)
        near &= (pixels[..., channel] >= low) & (pixels[..., channel] <= high)
    return near


def _box(mask: Mask) -> Box | None:
    """The box around everything at least two pixels wide: single pixels are noise."""
    solid = mask[:-1, :-1] & mask[1:, :-1] & mask[:-1, 1:] & mask[1:, 1:]
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 2, int(rows[-1]) + 2


def _outside(background: Mask) -> Mask:
    """Pixels of the background's colour that are connected to the border, so outside the character.

    Found in a coarse view, in which a cell counts only as a whole, and widened by one cell.
    """
    height, width = background.shape
    cell = -(-max(height, width) // _SPREAD_PX)
    rows, columns = -(-height // cell), -(-width // cell)
    padding = ((0, rows * cell - height), (0, columns * cell - width))
    whole = np.pad(background, padding, constant_values=True)
    free = np.logical_and.reduce(whole.reshape(rows, cell, columns, cell), axis=(1, 3))
    reached = np.zeros_like(free)
    reached[[0, -1]], reached[:, [0, -1]] = free[[0, -1]], free[:, [0, -1]]
    while (wider := _widened(reached) & free).sum() > reached.sum():
        reached = wider
    return _widened(reached).repeat(cell, 0).repeat(cell, 1)[:height, :width]


def _widened(mask: Mask) -> Mask:
    wider = mask.copy()
    wider[1:] |= mask[:-1]
    wider[:-1] |= mask[1:]
    wider[:, 1:] |= mask[:, :-1]
    wider[:, :-1] |= mask[:, 1:]
    return wider


def _on_white(pixels: NDArray[np.uint8], mask: Mask) -> Image.Image:
    return Image.fromarray(np.where(mask[..., None], pixels, np.uint8(255)))
