"""Where the server is, and the key for it: never in a workflow, never sent to another server."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from .errors import CastmateError

DEFAULT_URL = "http://127.0.0.1:8787"
URL_VARIABLE = "CASTMATE_URL"
KEY_VARIABLE = "CASTMATE_KEY"
FILE_VARIABLE = "CASTMATE_KEYS_FILE"


def default_url() -> str:
    """The server of this machine's user: `CASTMATE_URL`, or `castmate serve` on this machine."""
    return normal(os.environ.get(URL_VARIABLE) or DEFAULT_URL)


def normal(url: str) -> str:
    """An address without what may differ between two ways to write it.

    Raises:
        CastmateError: It is no address of a server.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise CastmateError(
            f"{url!r} is no address of a Castmate server. Write one such as {DEFAULT_URL} or "
            "https://cast.example.com."
        )
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def keys_file() -> Path:
    """The file with a line for each server: its address, a space and the key."""
    if named := os.environ.get(FILE_VARIABLE):
        return Path(named).expanduser()
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser() / "castmate" / "comfyui-keys"


def key_for(url: str) -> str | None:
    """The key of a server; None where there is none for it.

    A workflow names its server, and may come from a stranger: `CASTMATE_KEY` goes to the server of
    `CASTMATE_URL` alone, and every other key to the address beside it in the file.

    Raises:
        CastmateError: The file cannot be read.
    """
    path = keys_file()
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise CastmateError(f"The keys in {path} cannot be read: {error}.") from None
    for line in lines:
        server, _, key = line.strip().partition(" ")
        if server and not server.startswith("#") and key.strip() and normal(server) == url:
            return key.strip()
    return os.environ.get(KEY_VARIABLE) if url == default_url() else None
