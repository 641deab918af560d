"""The part of a reference that the image encoders see: its character, as large as it can be."""

from __future__ import annotations

from typing import Final

from PIL import Image

from castmate.decoding import Box
from castmate.framing import Cutout, by_alpha, by_background, by_transparency, with_margin
from castmate.images import Reference
from castmate.pipeline.matte import Matte
from castmate.schema import FramedReference, Framing, Matting

_FILLS: Final = 0.9
"""A character on white that is this large in its picture gains nothing by being cut out."""


class Framer:
    """Frames references as a request asks."""

    def __init__(self, matte: Matte | None, margin: float) -> None:
        """Know how a bundle frames.

        Args:
            matte: Its graph, if it has one.
            margin: White around the character, as a share of its longer side.
        """
        self._matte, self._margin = matte, margin

    def frame(self, reference: Reference, matting: Matting) -> tuple[Image.Image, FramedReference]:
        """The picture to look at, on white, and what it is of the reference."""
        image = reference.image
        framing, found = self._find(reference, matting)
        if found is None or (not found.whitened and self._fills(found.box, image.size)):
            return image, FramedReference(framing=Framing.NONE, box=(0, 0, 1, 1))
        left, top, right, bottom = found.box
        shares = (
            round(left / image.width, 4),
            round(top / image.height, 4),
            round(right / image.width, 4),
            round(bottom / image.height, 4),
        )
        framed = with_margin(found.image, found.box, self._margin)
        return framed, FramedReference(framing=framing, box=shares)

    def warnings(self, framed: FramedReference, matting: Matting) -> tuple[str, ...]:
        """What the caller asked for and did not get."""
        if matting is not Matting.TRUE or framed.framing is Framing.MATTE:
            return ()
        if self._matte is not None:
            why = "The bundle's matte graph found no character in the reference"
        else:
            why = "The bundle has no matte graph"
        done = {
            Framing.ALPHA: "it was cut out by its transparency",
            Framing.BACKGROUND: "it was cut out by its plain background",
        }.get(framed.framing, "the whole picture was taken")
        return (f"{why}, so enable_matting 'true' did nothing more than 'auto': {done}.",)

    def _find(self, reference: Reference, matting: Matting) -> tuple[Framing, Cutout | None]:
        if matting is Matting.FALSE:
            return Framing.NONE, None
        if matting is Matting.TRUE and self._matte is not None:
            return self._by_matte(self._matte, reference.image)
        if (found := by_transparency(reference)) is not None:
            return Framing.ALPHA, found
        if (found := by_background(reference.image)) is not None:
            return Framing.BACKGROUND, found
        if self._matte is not None:
            return self._by_matte(self._matte, reference.image)
        return Framing.NONE, None

    def _by_matte(self, matte: Matte, image: Image.Image) -> tuple[Framing, Cutout | None]:
        return Framing.MATTE, by_alpha(image, matte.alpha(image))

    def _fills(self, box: Box, size: tuple[int, int]) -> bool:
        longer = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * self._margin)
        return longer >= _FILLS * max(size)
