"""Pictures in and out: untrusted bytes to a checked reference, pixels to files and previews."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from castmate.errors import ImageRejected
from castmate.schema import OutputFormat

MAX_BYTES: Final = 20 * 2**20
MAX_PIXELS: Final = 40_000_000
# The side bounds the white square in which the pipeline frames a reference.
MIN_REFERENCE_SIDE, MAX_REFERENCE_SIDE = 32, 8192
PREVIEW_LIMIT: Final = 90_000
PREVIEW_SIDE: Final = 512

_FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF")
_ALLOWED: Final = "a PNG, JPEG, WEBP or GIF picture"
_CONVERT: Final = "Convert it to PNG or JPEG and try again."
_SCALE_DOWN: Final = "Scale it down: 1024 pixels a side are plenty."

# What people send by mistake, so that the error can call it by its name.
_OTHER_FORMATS: Final = {
    b"BM": "a BMP picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"%PDF": "a PDF document",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML or SVG file",
    b"<!DO": "a web page",
    b"<html": "a web page",
}
_OTHER_BRANDS: Final = {
    b"avif": "an AVIF picture",
    b"heic": "a HEIC picture",
    b"mif1": "a HEIC picture",
}

# Fixed, so that the same pixels give the same bytes, and chosen for latency: 1024*1024 takes
# ~80 ms as PNG (200 ms at Pillow's default level, for 15 % fewer bytes), 4 as JPEG, 25 as WEBP.
_ENCODINGS: Final[dict[OutputFormat, dict[str, Any]]] = {
    OutputFormat.PNG: {"compress_level": 1},
    OutputFormat.JPEG: {"quality": 92, "subsampling": "4:4:4"},
    OutputFormat.WEBP: {"quality": 90, "method": 0},
}

# (part of the side asked for, JPEG quality), best first; the last fits noise in 15 000 base64
# characters where 512 pixels are asked for, and 128 pixels at that quality follow it.
_LADDER: Final = ((1, 82), (1, 65), (0.75, 60), (0.5, 55), (0.375, 50), (0.25, 45))
_SMALLEST_SIDE: Final = 128


@dataclass(frozen=True)
class Reference:
    """The picture of the character.

    Attributes:
        data: The bytes as they came.
        sha256: Of `data`, in hex; the identity of the reference.
        image: The decoded picture: RGB, upright, transparency on white, first frame.
    """

    data: bytes = field(repr=False, compare=False)
    sha256: str
    image: Image.Image = field(repr=False, compare=False)

    @classmethod
    def from_bytes(cls, data: bytes, label: str) -> Self:
        """Check and decode a picture; its size is checked before a pixel is decoded.

        Args:
            data: An encoded picture.
            label: How an error names it, such as its path.

        Raises:
            ImageRejected: It is no picture, damaged, or too large or small.
        """
        if len(data) > MAX_BYTES:
            raise ImageRejected(
                f"{label} has more than {MAX_BYTES // 2**20} MiB",
                allowed=f"at most {MAX_BYTES // 2**20} MiB",
                hint=_SCALE_DOWN,
            )
        return cls(data, hashlib.sha256(data).hexdigest(), decode(data, label))


def decode(data: bytes, label: str) -> Image.Image:
    """Untrusted bytes to RGB pixels, upright; the size is checked before a pixel is decoded.

    Args:
        data: An encoded picture.
        label: How an error names it, such as its path.

    Raises:
        ImageRejected: It is no picture, damaged, or too large or small.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image, label)
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        other = _name_other(data)
        message = f"{label} is {other}" if other else f"{label} is not a picture"
        raise ImageRejected(message, allowed=_ALLOWED, hint=_CONVERT if other else "") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(label, "far too many pixels") from None
    except ImageRejected:
        raise
    except Exception as error:  # Pillow's readers raise anything on damaged bytes
        raise ImageRejected(
            f"{label} is damaged or cut off ({_reason(error)})",
            allowed=f"a complete file of {_ALLOWED}",
            hint="Save or download it again.",
        ) from None


def encode(pixels: NDArray[np.uint8], output_format: OutputFormat) -> bytes:
    """Encode pixels `[H, W, 3]`; the same pixels always give the same bytes."""
    return _save(Image.fromarray(pixels), output_format.value, _ENCODINGS[output_format])


def as_png(data: bytes) -> bytes:
    """One of our own pictures as PNG; a PNG stays byte for byte what it is."""
    with Image.open(io.BytesIO(data), formats=[name.upper() for name in OutputFormat]) as image:
        if image.format == "PNG":
            return data
        return _save(image.convert("RGB"), "png", _ENCODINGS[OutputFormat.PNG])


def preview(data: bytes, limit: int = PREVIEW_LIMIT, side: int = PREVIEW_SIDE) -> bytes:
    """The best small JPEG of one of our own pictures whose base64 has at most `limit` characters.

    Any picture fits in 15 000; below that the smallest is returned.

    Args:
        data: A picture in one of our formats.
        limit: Characters of base64.
        side: Pixels of its longer side, at most.
    """
    with Image.open(io.BytesIO(data), formats=[name.upper() for name in OutputFormat]) as image:
        full = image.convert("RGB")
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
    """Characters that `data` takes in base64."""
    return -(-len(data) // 3) * 4


def _check_size(image: Image.Image, label: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS or max(image.size) > MAX_REFERENCE_SIDE:
        raise _too_many_pixels(label, f"{width}*{height} pixels")
    if min(image.size) < MIN_REFERENCE_SIDE:
        raise ImageRejected(
            f"{label} has {width}*{height} pixels, too few to see a character",
            allowed=f"at least {MIN_REFERENCE_SIDE} pixels a side",
            hint="Use a larger picture: 512 to 1024 pixels a side work best.",
        )


def _too_many_pixels(label: str, found: str) -> ImageRejected:
    return ImageRejected(
        f"{label} has {found}",
        allowed=f"at most {MAX_PIXELS // 10**6} megapixels and {MAX_REFERENCE_SIDE} pixels a side",
        hint=_SCALE_DOWN,
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _name_other(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        return _OTHER_BRANDS.get(data[8:12], "a video")
    start = data.lstrip()[:8]
    return next((name for magic, name in _OTHER_FORMATS.items() if start.startswith(magic)), None)


def _save(image: Image.Image, file_format: str, options: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()
