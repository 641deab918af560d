"""Writes and finds text in a PNG, JPEG or WebP file without touching its pixels.

Two texts go in: one for Castmate, and one for other tools, in the form that they know from the
Stable Diffusion web UI. PNG has a chunk for each; JPEG and WebP have one Exif block.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from PIL import Image

from castmate.png import SIGNATURE, chunks

MAX_BYTES: Final = 64_000
"""The most that is written or read: a JPEG segment holds no more."""
_OURS: Final = b"castmate"
_THEIRS: Final = b"parameters"  # the web UI's key, and that of tools that read its files
_EXIF: Final = b"Exif\0\0"
_EXIF_IFD, _MAKER_NOTE, _USER_COMMENT = 0x8769, 0x927C, 0x9286
_BYTES_TYPE, _LONG_TYPE = 7, 4
_UTF16: Final = b"UNICODE\0"
_NOTE: Final = b"castmate\0"  # marks the maker note as Castmate's
_SOI, _APP0, _APP1, _SOS = 0xD8, 0xE0, 0xE1, 0xDA
_VP8X_ALPHA, _VP8X_EXIF = 0x10, 0x08


def put_in(data: bytes, ours: str, theirs: str) -> bytes:
    """The same picture with two texts; a file that cannot take them is returned unchanged.

    Args:
        data: A PNG, JPEG or WebP file.
        ours: For `find`.
        theirs: For other tools; omitted if both together are too long.
    """
    if data.startswith(SIGNATURE):
        return _into_png(data, ours, theirs)
    block = _exif_block(ours, theirs)
    if len(block) > MAX_BYTES:
        block = _exif_block(ours, "")
    if len(block) > MAX_BYTES:
        return data
    if data.startswith(b"\xff\xd8"):
        return _into_jpeg(data, block)
    return _into_webp(data, block) if _is_webp(data) else data


def find(data: bytes) -> str | None:
    """The text `ours` of `put_in`, or None; nothing is decompressed, and no pixel read."""
    if data.startswith(SIGNATURE):
        return _in_png(data)
    if data.startswith(b"\xff\xd8"):
        blocks = (body for kind, body in _segments(data) if kind == _APP1)
    elif _is_webp(data):
        blocks = (body for kind, body in _riff_chunks(data) if kind == b"EXIF")
    else:
        return None
    return next((text for block in blocks if (text := _in_exif(block)) is not None), None)


def _into_png(data: bytes, ours: str, theirs: str) -> bytes:
    head = len(SIGNATURE) + 25  # IHDR is the first chunk, and of one size
    if data[12:16] != b"IHDR":
        return data
    texts = _png_text(_OURS, ours) + _png_text(_THEIRS, theirs)
    return data[:head] + texts + data[head:]


def _png_text(keyword: bytes, text: str) -> bytes:
    try:
        kind, body = b"tEXt", keyword + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        kind, body = b"iTXt", keyword + b"\0\0\0\0\0" + text.encode()
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def _in_png(data: bytes) -> str | None:
    for kind, chunk in chunks(data):
        if kind not in (b"tEXt", b"iTXt") or len(chunk) > MAX_BYTES + 12:
            continue
        keyword, _, body = chunk[8:-4].partition(b"\0")
        if keyword != _OURS:
            continue
        if kind == b"tEXt":
            return body.decode("latin-1")
        if body[:1] == b"\0":  # not compressed
            _, _, rest = body[2:].partition(b"\0")
            return rest.partition(b"\0")[2].decode(errors="replace")
    return None


def _exif_block(ours: str, theirs: str) -> bytes:
    """A TIFF structure: a directory that points to an Exif directory, with the two texts."""
    values = {_MAKER_NOTE: _NOTE + ours.encode()}
    if theirs:
        values[_USER_COMMENT] = _UTF16 + theirs.encode("utf-16-be")
    first, second = 8, 8 + 2 + 12 + 4
    block = b"MM\0*" + struct.pack(">I", first)
    block += struct.pack(">HHHIII", 1, _EXIF_IFD, _LONG_TYPE, 1, second, 0)
    at = second + 2 + 12 * len(values) + 4
    block += struct.pack(">H", len(values))
    for tag, value in values.items():
        block += struct.pack(">HHII", tag, _BYTES_TYPE, len(value), at)
        at += len(value)
    return block + bytes(4) + b"".join(values.values())


def _in_exif(block: bytes) -> str | None:
    block = block.removeprefix(_EXIF)
    if len(block) > MAX_BYTES + len(_EXIF):
        return None
    try:
        exif = Image.Exif()
        exif.load(_EXIF + block)
        note = exif.get_ifd(_EXIF_IFD).get(_MAKER_NOTE)
    except Exception:  # of broken metadata Pillow raises anything
        return None
    if not isinstance(note, bytes) or not note.startswith(_NOTE):
        return None
    return note.removeprefix(_NOTE).decode(errors="replace")


def _into_jpeg(data: bytes, block: bytes) -> bytes:
    at = 2
    for kind, body in _segments(data):
        if kind == _APP1 and body.startswith(_EXIF):
            return data  # its own Exif says how to show it
        if kind == _APP0 and at == 2:
            at += 4 + len(body)
    body = _EXIF + block
    return data[:at] + struct.pack(">BBH", 0xFF, _APP1, len(body) + 2) + body + data[at:]


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The segments of a JPEG before its pixels."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _SOS:
        if data[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield data[at + 1], data[at + 4 : at + 2 + length]
        at += 2 + max(2, length)


def _is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _into_webp(data: bytes, block: bytes) -> bytes:
    parts = [*_riff_chunks(data)]
    if not parts or any(kind == b"EXIF" for kind, _ in parts):
        return data
    kind, body = parts[0]
    if kind == b"VP8X" and len(body) == 10:
        parts[0] = kind, bytes([body[0] | _VP8X_EXIF]) + body[1:]
    elif (described := _canvas(kind, body)) is not None:
        width, height, flags = described
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        parts.insert(0, (b"VP8X", bytes([flags | _VP8X_EXIF, 0, 0, 0]) + sides))
    else:
        return data
    parts.append((b"EXIF", block))
    written = b"".join(
        struct.pack("<4sI", kind, len(body)) + body + bytes(len(body) % 2) for kind, body in parts
    )
    return b"RIFF" + struct.pack("<I", len(written) + 4) + b"WEBP" + written


def _canvas(kind: bytes, body: bytes) -> tuple[int, int, int] | None:
    """Width, height and flags of the only frame of a simple file; None for other files."""
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF, 0
    if kind == b"VP8L" and body[:1] == b"\x2f" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        alpha = _VP8X_ALPHA if bits >> 28 & 1 else 0
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, alpha
    return None
