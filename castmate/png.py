"""Strips a PNG of everything but its pixels, for pictures with unreadable metadata."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# Pixels, palette and transparency; the other chunks only describe them.
_KEPT: Final = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_MAX_PROFILE_BYTES: Final = 16 * 2**20


def without_metadata(data: bytes) -> tuple[bytes, bytes | None]:
    """A PNG of the same pixels, and the colour profile if it is readable."""
    kept, profile = [SIGNATURE], None
    for kind, chunk in chunks(data):
        if kind in _KEPT:
            kept.append(chunk)
        elif kind == b"iCCP":
            profile = _profile(chunk[8:-4])
    return b"".join(kept), profile


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each chunk with its kind; of a damaged file as many as there are."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at : at + 12 + length]
        at += 12 + length


def _profile(body: bytes) -> bytes | None:
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(body.partition(b"\0")[2][1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return found if inflate.eof else None
