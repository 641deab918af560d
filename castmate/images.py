"""Pictures in and out: the checked reference of a character; pixels to files and previews."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import zlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Self
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from castmate.decoding import SCALE_DOWN, Box, decode
from castmate.errors import ImageRejected
from castmate.file_kinds import AVIF, HEIC, recognise
from castmate.png import SIGNATURE
from castmate.schema import OutputFormat

MAX_BYTES: Final = 20 * 2**20
PREVIEW_LIMIT: Final = 90_000
PREVIEW_SIDE: Final = 512

# Decoding has its own threads, so that pictures waiting for room delay no file or database access.
_THREADS: Final = os.cpu_count() or 1
_DECODERS: Final = ThreadPoolExecutor(_THREADS, thread_name_prefix="decoder")
_AT_A_TIME: Final = -(-_THREADS // 2)  # for one caller
_TURNS: Final[WeakValueDictionary[str, asyncio.Semaphore]] = WeakValueDictionary()

# Fixed, so that the same pixels give the same bytes, and tuned for latency: a drawing of 1024*1024
# takes 36 ms as PNG (141 ms at Pillow's default level, for 1 % fewer bytes), 3 as JPEG, 18 as WEBP.
# RLE alone makes a fifth fewer bytes of drawings than level 1 does, and 5 % more of photos.
_ENCODINGS: Final[dict[OutputFormat, dict[str, Any]]] = {
    OutputFormat.PNG: {"compress_level": 1, "compress_type": zlib.Z_RLE},
    OutputFormat.JPEG: {"quality": 92, "subsampling": "4:4:4"},
    OutputFormat.WEBP: {"quality": 90, "method": 0},
}

# (fraction of the requested side, JPEG quality), best first; at 512 pixels the last one fits noise
# into 15 000 base64 characters, and 128 pixels at that quality follow it.
_LADDER: Final = ((1, 82), (1, 65), (0.75, 60), (0.5, 55), (0.375, 50), (0.25, 45))
_SMALLEST_SIDE: Final = 128


@dataclass(frozen=True)
class Reference:
    """The picture of the character, or several; see `castmate.several`.

    Attributes:
        data: The bytes as received; PNG instead of HEIC and AVIF, which not everything can read.
        sha256: The hash of `data` in hex, or of those of several; it identifies the reference.
        image: The picture as `castmate.decoding` returns it; of several, the first.
        cutout: The box of what is opaque, if the rest of the picture is transparent.
        several: If there are several pictures: each alone, the best first.
    """

    data: bytes = field(repr=False, compare=False)
    sha256: str
    image: Image.Image = field(repr=False, compare=False)
    cutout: Box | None = field(default=None, compare=False)
    several: tuple[Self, ...] = field(default=(), repr=False, compare=False)

    @property
    def pictures(self) -> tuple[Self, ...]:
        """Every picture of the character, the best first."""
        return self.several or (self,)

    @classmethod
    def from_bytes(cls, data: bytes, label: str) -> Self:
        """Check and decode a picture; its size is checked before a pixel is decoded.

        Args:
            data: An encoded picture.
            label: How an error names it, such as its path.

        Raises:
            ImageRejected: It is not a picture, is damaged, or is too large or small.
            Overloaded: Too many large pictures are being decoded.
        """
        if len(data) > MAX_BYTES:
            raise ImageRejected(
                f"{label} has more than {MAX_BYTES // 2**20} MiB",
                allowed=f"at most {MAX_BYTES // 2**20} MiB",
                hint=SCALE_DOWN,
            )
        found = decode(data, label)
        image, cutout = found.image, found.cutout
        if recognise(data) in (AVIF, HEIC):  # flat from now on, also for readers of `data`
            data, cutout = encode(np.asarray(image), OutputFormat.PNG), None
        return cls(data, hashlib.sha256(data).hexdigest(), image, cutout)

    @classmethod
    async def read(cls, data: bytes, label: str, caller: str | None = None) -> Self:
        """Like `from_bytes`, off the event loop; servers use this one.

        Args:
            data: An encoded picture.
            label: How an error names it, such as its path.
            caller: Whose picture it is. Each caller's pictures are read a few at a time, so that
                other callers' do not wait for all of them.
        """
        loop = asyncio.get_running_loop()
        async with _turn_of(caller):
            return await loop.run_in_executor(_DECODERS, cls.from_bytes, data, label)


@contextlib.asynccontextmanager
async def _turn_of(caller: str | None) -> AsyncIterator[None]:
    if caller is None:
        yield
        return
    turn = _TURNS.setdefault(caller, asyncio.Semaphore(_AT_A_TIME))
    async with turn:
        yield


def encode(pixels: NDArray[np.uint8], output_format: OutputFormat) -> bytes:
    """Encode pixels `[H, W, 3]`, or with alpha `[H, W, 4]`; equal pixels give equal bytes."""
    return _save(Image.fromarray(pixels), output_format.value, _ENCODINGS[output_format])


def as_png(data: bytes) -> bytes:
    """A picture that Castmate made as PNG; a PNG is returned byte for byte."""
    if data.startswith(SIGNATURE):
        return data
    return _save(decode(data, "the picture").image, "png", _ENCODINGS[OutputFormat.PNG])


def preview(data: bytes, limit: int = PREVIEW_LIMIT, side: int = PREVIEW_SIDE) -> bytes:
    """The best small JPEG of a picture whose base64 has at most `limit` characters.

    Any picture fits in 15 000; below that the smallest is returned.

    Args:
        data: An encoded picture.
        limit: The largest number of base64 characters.
        side: The largest longer side, in pixels.
    """
    return small_jpeg(decode(data, "the picture").image, limit, side)


def small_jpeg(full: Image.Image, limit: int = PREVIEW_LIMIT, side: int = PREVIEW_SIDE) -> bytes:
    """The same for a decoded picture; see `preview`."""
    small = b""
    ladder = [(max(round(side * part), _SMALLEST_SIDE), quality) for part, quality in _LADDER]
    for pixels, quality in (*ladder, (_SMALLEST_SIDE, _LADDER[-1][1])):
        scaled = full.copy()
        scaled.thumbnail((pixels, pixels))
        small = _save(scaled, "jpeg", {"quality": quality, "optimize": True})
        if base64_length(small) <= limit:
            break
    return small


def base64_length(data: bytes) -> int:
    """The number of base64 characters for `data`."""
    return -(-len(data) // 3) * 4


def _save(image: Image.Image, file_format: str, options: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()
