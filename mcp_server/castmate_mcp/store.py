"""Finished pictures on disk, by id."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from castmate.images import write_atomically
from castmate.schema import GeneratedImage, OutputFormat

_ID = re.compile(r"img_[0-9a-f]{16}")
_SCHEME = "image://"


@dataclass(frozen=True)
class StoredImage:
    """A picture that has an id and a file."""

    image_id: str
    path: Path

    @property
    def uri(self) -> str:
        """The resource that gives it as PNG."""
        return f"{_SCHEME}{self.image_id}"


@dataclass(frozen=True)
class ImageStore:
    """One folder of pictures, each named by its id."""

    folder: Path

    def save(self, image: GeneratedImage) -> StoredImage:
        """Keep a picture under a new id, which nobody can guess.

        Raises:
            OSError: The folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        image_id = f"img_{secrets.token_hex(8)}"
        path = self.folder / f"{image_id}.{image.output_format}"
        write_atomically(path, image.data)
        return StoredImage(image_id, path)

    def find(self, image: str) -> StoredImage | None:
        """The picture of an id or `image://` URI, or None."""
        image_id = image.removeprefix(_SCHEME)
        if not _ID.fullmatch(image_id):
            return None
        paths = (self.folder / f"{image_id}.{suffix}" for suffix in OutputFormat)
        return next((StoredImage(image_id, path) for path in paths if path.is_file()), None)
