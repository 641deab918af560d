"""SHA-256 of files, remembered: a bundle of 30 GB is not read twice to be loaded once.

A file counts as unchanged while its device, inode, size and time of change are the same. Whoever
can set all of these can change what is remembered, too: it lies in the user's own data folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from pydantic import TypeAdapter

from castmate.files import make_private_folder, write_atomically

MOST_REMEMBERED = 1000
_STORED = TypeAdapter(dict[str, str])


def sha256_of(path: Path) -> str:
    """Read a file and hash it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Digests:
    """Hashes of files, in memory and, where a place for them is named, on disk."""

    def __init__(self, store: Path | None = None) -> None:
        """Read what is remembered.

        Args:
            store: A JSON file, made when something is hashed; one that cannot be read or written
                costs time and nothing else.
        """
        self._store = store
        self._known: dict[str, str] = {}
        if store is not None:
            with contextlib.suppress(OSError, ValueError):
                self._known = dict(_STORED.validate_json(store.read_bytes()))

    def of(self, path: Path) -> str:
        """The hash of a file, read only if it has changed since it was hashed last."""
        return self._known.get(_identity(path)) or self.read(path)

    def read(self, path: Path) -> str:
        """The hash of a file as it is now."""
        before = _identity(path)
        digest = sha256_of(path)
        if _identity(path) == before:  # else it changed meanwhile
            self._remember(before, digest)
        return digest

    def _remember(self, identity: str, digest: str) -> None:
        if self._known.pop(identity, None) == digest:
            self._known[identity] = digest
            return
        self._known[identity] = digest
        if self._store is None:
            return
        latest = dict(list(self._known.items())[-MOST_REMEMBERED:])
        with contextlib.suppress(OSError):
            make_private_folder(self._store.parent)
            write_atomically(self._store, json.dumps(latest, indent=1).encode())


def _identity(path: Path) -> str:
    found = path.stat()
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"
