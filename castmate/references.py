"""From what a caller names as the reference to the picture itself: data URI, URL or path."""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from castmate.errors import ImageRejected
from castmate.images import MAX_BYTES, Reference

_DATA_URI: Final = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)  # one letter is a drive
_WINDOWS_PATH: Final = re.compile(r"[a-z]:[\\/]|\\\\", re.IGNORECASE)
# How PNG, JPEG, GIF and WEBP files start in base64.
_BARE_BASE64: Final = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")

Fetch = Callable[[str], Awaitable[bytes]]


async def resolve(
    source: str,
    *,
    roots: Sequence[Path] | None = None,
    allow_http: bool = False,
    fetch: Fetch | None = None,
) -> Reference:
    """Read and check the picture that `source` names.

    Args:
        source: A data URI, an https URL, a `file://` URI or a path.
        roots: Folders in which a path must lie, symlinks followed; None allows every path, for a
            person at a terminal who can read those files anyway.
        allow_http: Whether URLs may be http:// ones too.
        fetch: What gets URLs; by default `castmate.fetch`, which reaches public addresses only.

    Raises:
        ImageRejected: Says why, and what is allowed instead.
    """
    scheme = match[1].lower() if (match := _SCHEME.match(source)) else ""
    if scheme == "data":
        data, label = _from_data_uri(source), "the data URI"
    elif scheme in ("https", "http"):
        get = fetch or functools.partial(_fetch, allow_http=allow_http)
        data, label = await get(source), _shown(source.split("?")[0])
    elif scheme in ("", "file"):
        path = _from_file_uri(source) if scheme else _as_path(source)
        data, label = await asyncio.to_thread(_read, path, roots), _shown(str(path))
    else:
        raise ImageRejected(f"{_shown(source)} is a {scheme} URI", allowed=_allowed(roots))
    return await asyncio.to_thread(Reference.from_bytes, data, label)


async def _fetch(url: str, *, allow_http: bool) -> bytes:
    from castmate.fetch import fetch  # only URLs pay for loading an HTTP client

    return await fetch(url, max_bytes=MAX_BYTES, allow_http=allow_http)


def _from_data_uri(source: str) -> bytes:
    if not (match := _DATA_URI.match(source)):
        raise ImageRejected(
            f"{_shown(source)} is not a base64 data URI",
            allowed="data:image/png;base64,... with the bytes of the picture",
        )
    # Line breaks and missing padding are common and harmless; anything else is damage.
    text = "".join(unquote(source[match.end() :]).split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ImageRejected(
            f"the data URI's base64 cannot be decoded ({error})",
            hint="Send it again, complete, or give a path or an https URL.",
        ) from None


def _from_file_uri(source: str) -> Path:
    parts = urlsplit(source)
    if parts.netloc not in ("", "localhost"):
        raise ImageRejected(
            f"{_shown(source)} is on another machine", allowed="file:///absolute/path"
        )
    return Path(url2pathname(parts.path))


def _as_path(source: str) -> Path:
    if source.startswith(_BARE_BASE64) and len(source) > 200:
        raise ImageRejected(
            f"{_shown(source)} looks like bare base64",
            hint="Put data:image/png;base64, in front of it.",
        )
    if os.name != "nt" and _WINDOWS_PATH.match(source):
        raise ImageRejected(
            f"{_shown(source)} is a Windows path, and this machine is not Windows",
            hint="Give the path as this machine sees it (in WSL: /mnt/c/...), or an https URL.",
        )
    try:
        return Path(source).expanduser()
    except RuntimeError as error:  # ~ of a user who does not exist
        raise ImageRejected(f"{_shown(source)}: {error}") from None


def _read(path: Path, roots: Sequence[Path] | None) -> bytes:
    shown = _shown(str(path))
    try:
        found = path.resolve() if roots is None else _inside(path, roots)
        if not found.is_file():  # nor may a pipe or a device be read: it may never end
            raise ImageRejected(
                f"{shown} {_what_else(found)}", allowed=_allowed(roots), hint=_near(found)
            )
        with found.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, RuntimeError, ValueError) as error:  # no permission, symlink loop, NUL, ...
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageRejected(f"{shown} cannot be read ({reason})", allowed=_allowed(roots)) from None


def _inside(path: Path, roots: Sequence[Path]) -> Path:
    """The real path, where it lies in one of the folders; a relative one is tried in each."""
    folders = [root.expanduser().resolve() for root in roots]
    candidates = [path.resolve()] if path.is_absolute() else [(f / path).resolve() for f in folders]
    inside = [found for found in candidates if any(map(found.is_relative_to, folders))]
    if file := next(filter(Path.is_file, inside), None):
        return file
    if len(inside) < len(candidates) or not folders:
        raise ImageRejected(
            f"{_shown(str(path))} is outside the folders that may be read",
            allowed=_allowed(roots),
            hint="Copy the picture into one of them, or add its folder to CASTMATE_IMAGE_ROOTS.",
        )
    return inside[0]


def _what_else(path: Path) -> str:
    if path.is_dir():
        return "is a folder"
    return "is not a file" if path.exists() else "does not exist"


def _near(path: Path) -> str:
    """A hint that names what lies where a missing file was looked for."""
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return ""
    pictures = (".png", ".jpg", ".jpeg", ".webp", ".gif")
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in pictures)
    return f"Pictures in {folder}: {', '.join(names[:10])}" if names else ""


def _allowed(roots: Sequence[Path] | None) -> str:
    if roots is None:
        where = "the path of a picture"
    elif roots:
        where = f"a path in {', '.join(str(root) for root in roots)}"
    else:
        where = "no path (CASTMATE_IMAGE_ROOTS names no folder)"
    return f"an https URL, a data URI, {where}"


def _shown(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:60]}... ({len(text)} characters)"
