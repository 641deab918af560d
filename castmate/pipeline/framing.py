"""Frames references for the image encoders: the character, as large as possible."""

from __future__ import annotations

from typing import Final

from PIL import Image

from castmate.decoding import Box
from castmate.framing import Cutout, Margins, by_alpha, by_background, by_transparency, with_margins
from castmate.images import Reference
from castmate.pipeline.matte import Matte
from castmate.schema import FramedReference, Framing, Matting

_FILLS: Final = 0.9
"""A character on white that fills this share of its picture gains nothing by a cut-out."""


class Framer:
    """Frames references as requests ask."""

    def __init__(self, matte: Matte | None, margins: Margins) -> None:
        """Frame as a bundle does.

        Args:
            matte: The bundle's matte graph, if it has one.
            margins: White around the character.
        """
        self._matte, self._margins = matte, margins

    def frame(self, reference: Reference, matting: Matting) -> tuple[Image.Image, FramedReference]:
        """The picture for the encoders, on white, and which part of the reference it is."""
        alone = self.frame_alone(reference, matting)
        if alone is not None or self._matte is None:
            return alone or self._framed(reference, Framing.NONE, None)
        found = by_alpha(reference.image, self._matte.alpha(reference.image))
        return self._framed(reference, Framing.MATTE, found)

    def frame_alone(
        self, reference: Reference, matting: Matting
    ) -> tuple[Image.Image, FramedReference] | None:
        """The same without running a graph; None if only the matte can decide."""
        if matting is Matting.FALSE:
            return self._framed(reference, Framing.NONE, None)
        if matting is Matting.TRUE and self._matte is not None:
            return None
        if (found := by_transparency(reference)) is not None:
            return self._framed(reference, Framing.ALPHA, found)
        if (found := by_background(reference.image)) is not None:
            return self._framed(reference, Framing.BACKGROUND, found)
        return self._framed(reference, Framing.NONE, None) if self._matte is None else None

    def _framed(
        self, reference: Reference, framing: Framing, found: Cutout | None
    ) -> tuple[Image.Image, FramedReference]:
        image = reference.image
        if found is None or (not found.whitened and self._fills(found.box, image.size)):
            return image, FramedReference(framing=Framing.NONE, box=(0, 0, 1, 1))
        left, top, right, bottom = found.box
        shares = (
            round(left / image.width, 4),
            round(top / image.height, 4),
            round(right / image.width, 4),
            round(bottom / image.height, 4),
        )
        framed = with_margins(found.image, found.box, self._margins)
        return framed, FramedReference(framing=framing, box=shares)

    def warnings(self, framed: FramedReference, matting: Matting) -> tuple[str, ...]:
        """Warnings if the caller does not get what the request asks for."""
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

    def _fills(self, box: Box, size: tuple[int, int]) -> bool:
        longer = max(box[2] - box[0], box[3] - box[1]) * (1 + sum(self._margins))
        return longer >= _FILLS * max(size)
