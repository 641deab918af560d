"""Remembered SHA-256 hashes of files, so that loading a bundle of 30 GB reads it only once.

A file counts as unchanged while its device, inode, size and change time are the same. Anyone who
can forge all of these can also change the remembered hashes, which are in the user's data folder.
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
    """Hashes of files, in memory and, if given a store, on disk."""

    def __init__(self, store: Path | None = None) -> None:
        """Read the remembered hashes.

        Args:
            store: A JSON file, created when a file is first hashed. If it cannot be read or
                written, that only costs time.
        """
        self._store = store
        self._known: dict[str, str] = {}
        if store is not None:
            with contextlib.suppress(OSError, ValueError):
                self._known = dict(_STORED.validate_json(store.read_bytes()))

    def of(self, path: Path) -> str:
        """The hash of a file, which is read only if it has changed since it was last hashed."""
        return self._known.get(_identity(path)) or self.read(path)

    def read(self, path: Path) -> str:
        """The hash of a file's current content."""
        before = _identity(path)
        digest = sha256_of(path)
        if _identity(path) == before:  # else it changed while it was read
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
