"""Several pictures of one character as one reference and one file, an uncompressed ZIP.

One file, because a prediction has one input: it is stored, counted, sent and recovered like any
picture. No door accepts such a file; only `read` reads what `together` made.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from castmate.errors import ImageRejected
from castmate.images import MAX_BYTES, Reference

MAX_TOGETHER: Final = 4
"""The most pictures of a character that one generation uses; further ones are ignored."""
_ZIP: Final = b"PK\x03\x04"
_MADE: Final = (1980, 1, 1, 0, 0, 0)  # the same pictures give the same bytes


def together(pictures: Sequence[Reference]) -> Reference:
    """The first `MAX_TOGETHER` pictures of one character as one reference, the best first.

    The same picture twice counts once; a single one is returned unchanged.

    Args:
        pictures: Single ones, at least one.
    """
    chosen = list({picture.sha256: picture for picture in pictures}.values())[:MAX_TOGETHER]
    if len(chosen) == 1:
        return chosen[0]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as packed:
        for number, picture in enumerate(chosen, 1):
            packed.writestr(zipfile.ZipInfo(str(number), _MADE), picture.data)
    return _of(stream.getvalue(), chosen)


def from_bytes(data: bytes, label: str) -> Reference:
    """A picture, or several from `together`; raises the same errors as `Reference.from_bytes`.

    Args:
        data: The bytes of either.
        label: How an error names it.
    """
    if not data.startswith(_ZIP):
        return Reference.from_bytes(data, label)
    parts = _unpacked(data, label)
    return _of(
        data, [Reference.from_bytes(part, f"{label}, {n}") for n, part in enumerate(parts, 1)]
    )


async def read(data: bytes, label: str) -> Reference:
    """Like `from_bytes`, off the event loop."""
    if not data.startswith(_ZIP):
        return await Reference.read(data, label)
    parts = await asyncio.to_thread(_unpacked, data, label)
    return _of(
        data, [await Reference.read(part, f"{label}, {n}") for n, part in enumerate(parts, 1)]
    )


def hash_together(hashes: Sequence[str]) -> str:
    """The `sha256` of the result of `together` for pictures with these hashes."""
    chosen = list(dict.fromkeys(hashes))[:MAX_TOGETHER]
    return chosen[0] if len(chosen) == 1 else hashlib.sha256("+".join(chosen).encode()).hexdigest()


def _of(data: bytes, parts: Sequence[Reference]) -> Reference:
    sha256 = hash_together([part.sha256 for part in parts])
    return replace(parts[0], data=data, sha256=sha256, several=tuple(parts))


def _unpacked(data: bytes, label: str) -> list[bytes]:
    """The pictures of a file, all of whose sizes are checked before any is read."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            found = packed.infolist()
            if not 1 < len(found) <= MAX_TOGETHER or any(
                one.compress_type != zipfile.ZIP_STORED or one.file_size > MAX_BYTES
                for one in found
            ):
                raise zipfile.BadZipFile("it is another kind of ZIP")
            return [packed.read(one) for one in found]
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise ImageRejected(
            f"{label} is no picture, nor several of one character ({error})",
            allowed=f"a picture, or 2..{MAX_TOGETHER} pictures in a ZIP without compression",
        ) from None
