"""Exports a series as one file: a PDF with a page for each scene, or a ZIP of everything."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from PIL import Image, ImageDraw

from castmate.captions import typeface_for
from castmate.contact_sheet import Cell
from castmate.decoding import DECODING

_GAP: Final = 0.04  # of the longer side of a page's picture
_TEXT: Final = 0.035  # likewise, for letters
_LINES: Final = 4
_PAPER, _INK, _EMPTY = "white", "#222222", "#eeeeee"
_DPI: Final = 150.0
_QUALITY: Final = 92
_BYTES_A_PIXEL: Final = 3
_DAWN: Final = (1980, 1, 1, 0, 0, 0)  # the oldest date in a ZIP: files get no real date

Read = Callable[[], Awaitable[bytes]]


def pdf(cells: Sequence[Cell], title: str, made: float) -> bytes:
    """A PDF with a page for each scene, its caption under the picture.

    Args:
        cells: The scenes in order, at least one of them with a picture.
        title: The document's title.
        made: The document's date, in seconds since 1970, so that the same series gives the same
            bytes.

    Raises:
        Overloaded: Too many large pictures are being read.
    """
    size = max(
        (_size(cell.data) for cell in cells if cell.data is not None),
        key=lambda each: each[0] * each[1],
    )
    with DECODING.hold(2 * _BYTES_A_PIXEL * size[0] * size[1] * len(cells)):
        first, *others = (_page(cell, size) for cell in cells)
        stream, date = io.BytesIO(), time.gmtime(made)
        first.save(
            stream,
            "PDF",
            save_all=True,
            append_images=others,
            resolution=_DPI,
            quality=_QUALITY,
            title=title,
            creationDate=date,
            modDate=date,
        )
        return stream.getvalue()


async def archive(files: Sequence[tuple[str, Read]], about: Any) -> AsyncIterator[bytes]:
    """A ZIP in pieces, with one of its files in memory at a time; missing files are omitted.

    Args:
        files: The name of each file, and what reads it.
        about: The content of storyboard.json.
    """
    pieces = _Pieces()
    with zipfile.ZipFile(pieces, "w") as made:
        for name, read in files:
            try:
                data = await read()
            except FileNotFoundError:
                continue
            made.writestr(zipfile.ZipInfo(name, _DAWN), data)  # pictures are already compressed
            yield pieces.take()
        description = json.dumps(about, indent=2, ensure_ascii=False)
        made.writestr(zipfile.ZipInfo("storyboard.json", _DAWN), description)
    yield pieces.take()


class _Pieces(io.RawIOBase):
    """A stream whose written bytes are taken in pieces; it cannot seek."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken, self._written = bytes(self._written), bytearray()
        return taken


def _page(cell: Cell, size: tuple[int, int]) -> Image.Image:
    width, height = size
    gap, text_px = round(max(size) * _GAP), round(max(size) * _TEXT)
    caption = f"{cell.number}. {cell.caption}"
    face = typeface_for(caption, text_px)
    lines = face.wrapped(caption, width, _LINES)
    page = Image.new("RGB", (width + 2 * gap, height + 3 * gap + _LINES * face.line_px), _PAPER)
    draw = ImageDraw.Draw(page)
    if cell.data is None:
        draw.rectangle((gap, gap, gap + width - 1, gap + height - 1), _EMPTY)
    else:
        with Image.open(io.BytesIO(cell.data)) as picture:
            shown = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        shown.thumbnail(size)
        left, top = gap + (width - shown.width) // 2, gap + (height - shown.height) // 2
        page.paste(shown, (left, top), shown.getchannel("A") if shown.mode == "RGBA" else None)
    for number, line in enumerate(lines):
        draw.text((gap, height + 2 * gap + number * face.line_px), line, _INK, face.font)
    return page


def _size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size
