"""Untrusted bytes to RGB pixels: upright, in sRGB, on white, within bounded memory.

Every picture that a user sends, through any door, is decoded here.
"""

from __future__ import annotations

import io
import logging
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

from castmate.colour import ToSrgb
from castmate.errors import CastmateError, ImageRejected
from castmate.file_kinds import AVIF, CONVERT, HEIC, recognise
from castmate.memory import ByteGate, give_back
from castmate.png import SIGNATURE, without_metadata

MAX_PIXELS: Final = 40_000_000
MIN_SIDE, MAX_SIDE = 32, 8192
# Larger pictures are reduced to between half of this and this: the image encoders see at most
# 768 pixels a side, and pictures drawn by Castmate or the hosted model have at most 1536.
KEPT_SIDE: Final = 2048

# For all decoded pictures of the process; a PNG of 40 megapixels takes 160 MB.
DECODING: Final = ByteGate(256 * 2**20, patience_s=20)

ALLOWED: Final = "a PNG, JPEG, WEBP, GIF, AVIF or HEIC picture"
SCALE_DOWN: Final = "Scale it down: 1024 pixels a side are plenty."

_FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF")
# Bytes a pixel while a format is decoded: Pillow's four, plus what its library holds.
_DECODING_BYTES: Final = {"GIF": 8, "WEBP": 20, "AVIF": 20, "HEIF": 20}
_PILLOW_BYTES: Final = 4
_COEFFICIENT_BYTES: Final = 6  # a progressive JPEG is held whole, at its full size
_CONVERTING_BYTES: Final = 16
_GIVEN_BACK_FROM: Final = 32 * 2**20
_STRIP_ROWS: Final = 64

OPAQUE: Final = 128
"""Least alpha of a pixel that counts as visible."""
_CUT_OUT_FROM: Final = 0.05  # share of transparent pixels: round corners alone make no cut-out

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are exclusive."""

_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_KNOWN_BRANDS: Final = frozenset(
    b"avif avis heic heix heim heis hevc hevx hevm hevs mif1 msf1".split()
)
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"

# Pillow's warnings about a user's metadata do not belong on the server's stderr.
warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Decoded:
    """A picture in the form that all code behind the doors works with.

    Attributes:
        image: RGB, upright, in sRGB, transparency on white, first frame, at most `KEPT_SIDE` a
            side.
        cutout: The box of what is opaque, if the rest is transparent; else None.
    """

    image: Image.Image
    cutout: Box | None


def decode(data: bytes, label: str) -> Decoded:
    """Decode a picture, after checking its size and waiting for memory.

    Args:
        data: An encoded picture.
        label: How an error names it, such as its path.

    Raises:
        ImageRejected: It is not a picture, damaged, too large or too small.
        Overloaded: Too many large pictures are being decoded.
    """
    kind = recognise(data)
    if kind is HEIC:
        _enable_heic(label)
    if kind in (HEIC, AVIF):
        data = _with_known_brand(data, b"heic" if kind is HEIC else b"avif")
    try:
        return _read_or_mend(data, label)
    except CastmateError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(label, "far too many pixels") from None
    except UnidentifiedImageError:
        raise ImageRejected(
            f"{label} is {kind.name if kind else 'not a picture'}",
            allowed=ALLOWED,
            hint=kind.hint if kind else "",
        ) from None
    except Exception as error:  # Pillow's readers raise anything on damaged bytes
        raise ImageRejected(
            f"{label} is damaged or cut off ({str(error) or type(error).__name__})",
            allowed=f"a complete file of {ALLOWED}",
            hint="Save or download it again.",
        ) from None


def _read_or_mend(data: bytes, label: str) -> Decoded:
    try:
        return _read(data, label)
    except (CastmateError, Image.DecompressionBombError):
        raise
    except Exception:  # of broken metadata the library raises anything; it is raised again below
        if data.startswith(SIGNATURE):
            return _read(*_without_metadata(data, label))
        if data.startswith(_JPEG_START) and (ended := _with_end(data, label)):
            return ended
        raise


def _without_metadata(data: bytes, label: str) -> tuple[bytes, str, bytes | None]:
    plain, profile = without_metadata(data)
    return plain, label, profile


def _with_end(data: bytes, label: str) -> Decoded | None:
    """Decode a JPEG that lacks only its end marker.

    The library silently fills missing pixels with grey. But if every pixel is present, whatever
    follows makes no difference.
    """
    data = data.rstrip(b"\xff")
    found = _read(data + _JPEG_END, label)
    other = _read(data + bytes(range(1, 250)) + _JPEG_END, label)
    return None if ImageChops.difference(found.image, other.image).getbbox() else found


def _read(data: bytes, label: str, profile: bytes | None = None) -> Decoded:
    found, num_bytes = _load(data, label, profile)
    if num_bytes >= _GIVEN_BACK_FROM:  # only now has nobody the whole picture any more
        give_back()
    return found


def _load(data: bytes, label: str, profile: bytes | None) -> tuple[Decoded, int]:
    """The picture, and the bytes that decoding it took."""
    kind = recognise(data)
    formats = ("HEIF",) if kind is HEIC else ("AVIF",) if kind is AVIF else _FORMATS
    with Image.open(io.BytesIO(data), formats=formats) as image:
        _check_size(image, label)
        num_bytes = _draft(image)
        with DECODING.hold(num_bytes):
            image.load()
            colours = ToSrgb.of(profile or image.info.get("icc_profile"), image.mode)
            pixels, alpha = _reduced(image, colours)
            method = _UPRIGHT.get(_orientation(image))
    if method is not None:
        pixels = pixels.transpose(method)
        alpha = None if alpha is None else alpha.transpose(method)
    return Decoded(pixels, _cutout(alpha)), num_bytes


def _cutout(alpha: Image.Image | None) -> Box | None:
    if alpha is None:
        return None
    opaque = alpha.point([255 * (value >= OPAQUE) for value in range(256)])
    share = opaque.histogram()[0] / (alpha.width * alpha.height)
    return opaque.getbbox() if share >= _CUT_OUT_FROM else None


def _draft(image: Image.Image) -> int:
    """Let the decoder reduce the picture, if it can; returns the bytes that decoding will take."""
    width, height = image.size
    num_bytes = 0
    if image.format in ("JPEG", "MPO"):
        if image.info.get("progressive"):
            num_bytes = width * height * _COEFFICIENT_BYTES
        scale = max(1.0, max(image.size) / KEPT_SIDE)
        image.draft(None, (max(1, int(width / scale)), max(1, int(height / scale))))
    width, height = image.size
    num_bytes += width * height * _DECODING_BYTES.get(image.format or "", _PILLOW_BYTES)
    return num_bytes + width * height * _CONVERTING_BYTES // _factor(image) ** 2


def _factor(image: Image.Image) -> int:
    return -(-max(image.size) // KEPT_SIDE)


def _reduced(image: Image.Image, colours: ToSrgb | None) -> tuple[Image.Image, Image.Image | None]:
    """A loaded picture as RGB, at most `KEPT_SIDE` a side, and its alpha, if it has any.

    It is converted in strips, so that each copy is small.
    """
    factor = _factor(image)
    if factor == 1:
        return _flatten(image, colours)
    width, height = image.size
    size = (-(-width // factor), -(-height // factor))
    pixels = Image.new("RGB", size)
    alpha = Image.new("L", size) if image.has_transparency_data else None
    rows = _STRIP_ROWS * factor
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        strip_pixels, strip_alpha = _flatten(strip, colours)
        pixels.paste(strip_pixels.reduce(factor), (0, top // factor))
        if alpha is not None and strip_alpha is not None:
            alpha.paste(strip_alpha.reduce(factor), (0, top // factor))
    return pixels, alpha


def _flatten(image: Image.Image, colours: ToSrgb | None) -> tuple[Image.Image, Image.Image | None]:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return (colours(image) if colours else image.convert("RGB")), None
    layer = image.convert("RGBA")
    alpha = layer.getchannel("A")
    if colours:
        opaque = colours(layer.convert("RGB"))
        opaque.putalpha(alpha)
        layer = opaque
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB"), alpha


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken metadata decides nothing
        return 1


def _enable_heic(label: str) -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise ImageRejected(
            f"{label} is {HEIC.name}, and this installation cannot read those",
            allowed=ALLOWED,
            hint=f"{CONVERT} Or install the extra `photos`: pip install 'castmate[photos]'.",
        ) from None
    register_heif_opener(thumbnails=False)


def _with_known_brand(data: bytes, brand: bytes) -> bytes:
    """Put a known brand first: readers look only at the first, and phones put others there."""
    return data if data[8:12] in _KNOWN_BRANDS else data[:8] + brand + data[12:]


def _check_size(image: Image.Image, label: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise _too_many_pixels(label, f"{width}*{height} pixels")
    if min(image.size) < MIN_SIDE:
        raise ImageRejected(
            f"{label} has {width}*{height} pixels, too few to see a character",
            allowed=f"at least {MIN_SIDE} pixels a side",
            hint="Use a larger picture: 512 to 1024 pixels a side work best.",
        )


def _too_many_pixels(label: str, found: str) -> ImageRejected:
    return ImageRejected(
        f"{label} has {found}",
        allowed=f"at most {MAX_PIXELS // 10**6} megapixels and {MAX_SIDE} pixels a side",
        hint=SCALE_DOWN,
    )
