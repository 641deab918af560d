"""Finds the picture that a caller names as reference: data URI, URL, path or stdin."""

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

from castmate import paths, streams
from castmate.errors import ImageRejected
from castmate.file_kinds import is_picture
from castmate.images import MAX_BYTES, Reference
from castmate.shorten import shorten

_DATA_URI: Final = re.compile(r"(?:data:|image/)[^,]*;base64,", re.IGNORECASE)
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)  # a single letter is a drive
_WINDOWS_PATH: Final = re.compile(r"[a-z]:[\\/]|\\\\", re.IGNORECASE)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_=\s-]+")
_SHORTEST_BASE64: Final = 80  # characters; a picture has more, and few paths have
_URL_SAFE: Final = str.maketrans("-_", "+/")

Fetch = Callable[[str], Awaitable[bytes]]


async def resolve(
    source: str,
    *,
    roots: Sequence[Path] | None = None,
    allow_http: bool = False,
    use_proxy: bool = False,
    fetch: Fetch | None = None,
    caller: str | None = None,
) -> Reference:
    """Read and check the picture that `source` names.

    Args:
        source: A data URI or its base64 alone, an https URL, a `file://` URI or a path; if every
            path is allowed, also `-` for stdin and a shell's pipes.
        roots: Folders in which a path must lie after following symlinks; None allows every path,
            for a person at a terminal who can read those files anyway.
        allow_http: Whether http:// URLs are allowed too.
        use_proxy: Whether URLs are fetched through the proxy of the environment.
        fetch: Downloads URLs; by default `castmate.fetch`, which reaches only public addresses.
        caller: Who asks, for a server with many callers; see `Reference.read`.

    Raises:
        ImageRejected: Says why, and what is allowed instead.
        Overloaded: Too many large pictures are being read.
    """
    scheme = match[1].lower() if (match := _SCHEME.match(source)) else ""
    if scheme == "data" or _DATA_URI.match(source):
        data, label = _from_data_uri(source), "the data URI"
    elif scheme in ("https", "http"):
        get = fetch or functools.partial(_fetch, allow_http=allow_http, use_proxy=use_proxy)
        data, label = await get(source), _shown(source.split("?")[0])
    elif is_base64(source):
        data, label = _from_base64(source), "the base64"
    elif roots is None and streams.is_stream(source):
        data, label = await _from_stream(source), "stdin" if source == "-" else source
    elif scheme in ("", "file"):
        path = _from_file_uri(source) if scheme else _as_path(source)
        data, label = await asyncio.to_thread(_read, path, roots), _shown(str(path))
    else:
        raise ImageRejected(f"{_shown(source)} is a {scheme} URI", allowed=_allowed(roots))
    return await Reference.read(data, label, caller)


def is_base64(source: str) -> bool:
    """Whether this is unmistakably a picture in base64, even without `data:`."""
    start = "".join(source[:_SHORTEST_BASE64].split()).translate(_URL_SAFE)[:32]
    try:
        looks_so = is_picture(base64.b64decode(start, validate=True))
    except (ValueError, binascii.Error):
        return False
    return looks_so and len(source) >= _SHORTEST_BASE64 and _BASE64.fullmatch(source) is not None


async def _fetch(url: str, *, allow_http: bool, use_proxy: bool) -> bytes:
    from castmate.fetch import fetch  # only URLs pay for loading an HTTP client

    return await fetch(url, max_bytes=MAX_BYTES, allow_http=allow_http, use_proxy=use_proxy)


def _from_data_uri(source: str) -> bytes:
    if not (match := _DATA_URI.match(source)):
        raise ImageRejected(
            f"{_shown(source)} is not a base64 data URI",
            allowed="data:image/png;base64,... with the bytes of the picture",
        )
    return _from_base64(unquote(source[match.end() :]))


def _from_base64(text: str) -> bytes:
    # Line breaks, missing padding and the URL-safe alphabet are common and harmless; anything else
    # is damage.
    text = "".join(text.split()).rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ImageRejected(
            f"the data URI's base64 cannot be decoded ({error})",
            hint="Send it again, complete, or give a path or an https URL.",
        ) from None


async def _from_stream(source: str) -> bytes:
    try:
        return await streams.read(source, MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageRejected(
            f"{source} cannot be read ({reason})", allowed="a picture in a pipe, or a path"
        ) from None


def _from_file_uri(source: str) -> Path:
    parts = urlsplit(source)
    if parts.netloc not in ("", "localhost"):
        raise ImageRejected(
            f"{_shown(source)} is on another machine", allowed="file:///absolute/path"
        )
    return Path(url2pathname(parts.path))


def _as_path(source: str) -> Path:
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
        found = paths.as_spelled(path).resolve() if roots is None else _inside(path, roots)
        if not found.is_file():  # never read a pipe or a device: it may not end
            raise ImageRejected(
                f"{shown} {_what_else(found)}", allowed=_allowed(roots), hint=_near(found)
            )
        with found.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, RuntimeError, ValueError) as error:  # no permission, symlink loop, NUL...
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageRejected(f"{shown} cannot be read ({reason})", allowed=_allowed(roots)) from None


def _inside(path: Path, roots: Sequence[Path]) -> Path:
    """The real path, if it is inside one of the folders; a relative path is tried in each."""
    folders = [root.expanduser().resolve() for root in roots]
    named = [path] if path.is_absolute() else [folder / path for folder in folders]
    candidates = [paths.as_spelled(one).resolve() for one in named]
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
    """A hint that names the pictures in a missing one's folder, the likeliest first."""
    folder = path if path.is_dir() else path.parent
    names = paths.nearest(folder, path.name)
    return f"Pictures in {folder}: {', '.join(names)}" if names else ""


def _allowed(roots: Sequence[Path] | None) -> str:
    if roots is None:
        where = "the path of a picture"
    elif roots:
        where = f"a path in {', '.join(str(root) for root in roots)}"
    else:
        where = "no path (CASTMATE_IMAGE_ROOTS names no folder)"
    return f"an https URL, a data URI, {where}"


def _shown(text: str) -> str:
    return text if len(text) <= 100 else f"{shorten(text, 63)} ({len(text)} characters)"
