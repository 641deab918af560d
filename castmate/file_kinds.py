"""Recognises kinds of files by their first bytes, without decoding anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CONVERT: Final = "Convert it to PNG or JPEG and try again."

_SUFFIXES: Final = (
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF87a", ".gif"),
    (b"GIF89a", ".gif"),
)
_PICTURES: Final = (*(start for start, _ in _SUFFIXES), b"\xff\x0a")
_JPEG_XL: Final = b"\0\0\0\x0cJXL \r\n\x87\n"
_HEIC_BRANDS: Final = frozenset(
    b"heic heix heim heis hevc hevx hevm hevs mif1 mif2 msf1 miaf MiHA MiHB MiHE".split()
)
_AVIF_BRANDS: Final = frozenset((b"avif", b"avis"))


@dataclass(frozen=True)
class Kind:
    """A kind of file that somebody sent instead of a readable picture.

    Attributes:
        name: Completes "it is".
        hint: What to do about it.
    """

    name: str
    hint: str = CONVERT


AVIF: Final = Kind("an AVIF picture")
HEIC: Final = Kind("a HEIC picture")
EMPTY: Final = Kind("empty", "Save or download it again.")
WEB_PAGE: Final = Kind(
    "a web page",
    "It may be a sign-in page or the page around a picture: give the address of the picture "
    "itself, one that opens without signing in.",
)
LFS_POINTER: Final = Kind(
    "a Git LFS pointer, not the picture itself", "Run `git lfs pull` in its repository first."
)

_STARTS: Final = (
    (b"\xff\x0a", Kind("a JPEG XL picture")),
    (_JPEG_XL, Kind("a JPEG XL picture")),
    (b"\0\0\0\x0cjP  \r\n\x87\n", Kind("a JPEG 2000 picture")),
    (b"BM", Kind("a BMP picture")),
    (b"II*\0", Kind("a TIFF picture")),
    (b"MM\0*", Kind("a TIFF picture")),
    (b"8BPS", Kind("a Photoshop document")),
    (b"PK\3\4", Kind("a ZIP archive", "Unpack it and give one picture.")),
    (b"\x1f\x8b", Kind("compressed with gzip", "Decompress it and try again.")),
    (b"\0\5\x16\7", Kind("a macOS side file", "Give the file without `._` before its name.")),
    (b"version https://git-lfs.github.com/spec/", LFS_POINTER),
)
_TEXT_STARTS: Final = (
    (b"%pdf", Kind("a PDF document")),
    (b"<svg", Kind("an SVG drawing")),
    (b"<!doctype svg", Kind("an SVG drawing")),
    (b"<?xml", Kind("an XML or SVG file")),
    (b"<!doctype html", WEB_PAGE),
    (b"<html", WEB_PAGE),
    (b"<head", WEB_PAGE),
    (b"<!--", WEB_PAGE),
    (b"{", Kind("a JSON document", "Look at what it says: it may be an error message.")),
)


def recognise(data: bytes) -> Kind | None:
    """The kind of a file; None for the supported formats, and for unknown ones."""
    if not data:
        return EMPTY
    if data[4:8] == b"ftyp":
        return _of_brands(data)
    for start, kind in _STARTS:
        if data.startswith(start):
            return kind
    text = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for start, kind in _TEXT_STARTS if text.startswith(start)), None)


def is_picture(data: bytes) -> bool:
    """Whether the first bytes are those of a picture in any format that is read or recognised."""
    if data.startswith(_PICTURES) or data.startswith(_JPEG_XL):
        return True
    if data[:4] == b"RIFF":
        return data[8:12] == b"WEBP"
    return recognise(data) in (AVIF, HEIC) if data[4:8] == b"ftyp" else False


def suffix_of(data: bytes) -> str | None:
    """The file suffix of a readable picture, by its first kilobyte; else None."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    if data[4:8] == b"ftyp":
        kind = _of_brands(data)
        return ".avif" if kind is AVIF else ".heic" if kind is HEIC else None
    return next((suffix for start, suffix in _SUFFIXES if data.startswith(start)), None)


def _of_brands(data: bytes) -> Kind:
    """The kind of a file in MP4's container, which phones also use for pictures."""
    length = min(int.from_bytes(data[:4], "big"), 1024)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, length, 4))]
    if _AVIF_BRANDS.intersection(brands):
        return AVIF
    return HEIC if _HEIC_BRANDS.intersection(brands) else Kind("a video")
