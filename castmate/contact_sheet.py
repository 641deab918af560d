"""Contact sheets: all pictures of a series in one, with captions."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from PIL import Image, ImageDraw

from castmate.captions import Typeface, typeface_for
from castmate.storyboard import Layout

_CELL_PX: Final = 512  # longer side of a picture on the sheet
_GAP_PX: Final = 24
_TEXT_PX: Final = 22
_SHAPE: Final = 1.8  # width of a sheet divided by its height
_LINES: Final = 3  # most of a caption; the result has the whole text
_PAPER: Final = "white"
_INK: Final = "#222222"
_FAINT: Final = "#9a9a9a"
_NONE: Final = "no picture"
_EMPTY: Final = "#eeeeee"


@dataclass(frozen=True)
class Cell:
    """One scene.

    Attributes:
        number: The scene's number, from 1.
        caption: The scene as requested.
        data: Its encoded picture; None if it has none.
    """

    number: int
    caption: str
    data: bytes | None = field(repr=False)


def contact_sheet(cells: Sequence[Cell], layout: Layout) -> bytes:
    """A PNG of the scenes in reading order.

    A storyboard's captions are numbered and left-aligned; a sheet's labels are centred. A sheet of
    characters without background is a sprite sheet: equal cells, no captions, no background.
    A caption that is too long for three lines ends in "...", and `castmate.captions` replaces
    letters that no installed font has.

    Args:
        cells: At least one of them with a picture.
        layout: What the sheet is for.
    """
    pictures = [_scaled(cell.data) for cell in cells]
    width = max(picture.width for picture in pictures if picture)
    height = max(picture.height for picture in pictures if picture)
    captions = [_caption(cell, layout) for cell in cells]
    faces = [typeface_for(caption, _TEXT_PX) for caption in captions]
    texts = [face.wrapped(text, width, _LINES) for face, text in zip(faces, captions, strict=True)]
    line_px = max(face.line_px for face in faces)
    caption_px = max(map(len, texts)) * line_px + _GAP_PX // 2
    columns = _columns(len(cells), width / height)
    if layout is Layout.SHEET and all(one is None or one.mode == "RGBA" for one in pictures):
        return _sprites(pictures, columns, (width, height))
    rows = math.ceil(len(cells) / columns)
    step_x, step_y = width + _GAP_PX, height + caption_px + _GAP_PX
    sheet = Image.new("RGB", (columns * step_x + _GAP_PX, rows * step_y + _GAP_PX), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, picture in enumerate(pictures):
        left = _GAP_PX + place % columns * step_x
        top = _GAP_PX + place // columns * step_y
        if picture is None:
            draw.rectangle((left, top, left + width - 1, top + height - 1), _EMPTY)
            middle = (left + width / 2, top + height / 2)
            _write(draw, typeface_for(_NONE, _TEXT_PX), _NONE, middle, _FAINT, "mm")
        else:
            offset = ((width - picture.width) // 2, (height - picture.height) // 2)
            sheet.paste(picture, (left + offset[0], top + offset[1]), _mask(picture))
        for line, text in enumerate(texts[place]):
            y = top + height + _GAP_PX / 3 + line * line_px
            centred = layout is Layout.SHEET
            x = left + width / 2 if centred else left
            _write(draw, faces[place], text, (x, y), _INK, "ma" if centred else "la")
    return _encoded(sheet)


def _sprites(pictures: Sequence[Image.Image | None], columns: int, cell: tuple[int, int]) -> bytes:
    """Pictures without background in a grid that programs can cut by arithmetic."""
    width, height = cell
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGBA", (columns * width, rows * height))
    for place, picture in enumerate(pictures):
        if picture is not None:
            left = place % columns * width + (width - picture.width) // 2
            top = place // columns * height + (height - picture.height) // 2
            sheet.paste(picture, (left, top))
    return _encoded(sheet)


def _encoded(sheet: Image.Image) -> bytes:
    stream = io.BytesIO()
    sheet.save(stream, "png", compress_level=1)
    return stream.getvalue()


def _caption(cell: Cell, layout: Layout) -> str:
    return cell.caption if layout is Layout.SHEET else f"{cell.number}. {cell.caption}"


def _columns(count: int, shape: float) -> int:
    """The number of columns that brings the sheet's shape closest to a wide screen's.

    Args:
        count: How many pictures.
        shape: Width of a picture divided by its height.
    """

    def badness(columns: int) -> tuple[float, int]:
        rows = math.ceil(count / columns)
        empty = columns * rows - count
        return abs(math.log(columns * shape / rows / _SHAPE)) + empty / count, columns

    return min(range(1, count + 1), key=badness)


def _scaled(data: bytes | None) -> Image.Image | None:
    if data is None:
        return None
    with Image.open(io.BytesIO(data)) as picture:
        small = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    small.thumbnail((_CELL_PX, _CELL_PX), Image.Resampling.LANCZOS)
    return small


def _mask(picture: Image.Image) -> Image.Image | None:
    return picture.getchannel("A") if picture.mode == "RGBA" else None


def _write(
    draw: ImageDraw.ImageDraw,
    face: Typeface,
    text: str,
    at: tuple[float, float],
    ink: str,
    anchor: str,
) -> None:
    draw.text(at, text, ink, face.font, anchor)
