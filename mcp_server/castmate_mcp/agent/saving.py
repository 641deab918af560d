"""`save_to`: also writes a finished picture where the user wants it, inside the image roots.

The path is recorded with the job, so that a call that returns later, or after a restart, also
writes the picture. No link leads out of the roots: the folder is resolved first, and a link with
the file's name is never written through.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from castmate.errors import InvalidRequest, Problem
from castmate.files import write_atomically
from castmate.jobs.predictions import Prediction
from castmate.schema import OutputFormat
from castmate_mcp.agent.studio import Studio

_SUFFIXES: Final = {
    OutputFormat.PNG: (".png",),
    OutputFormat.JPEG: (".jpg", ".jpeg"),
    OutputFormat.WEBP: (".webp",),
}

_WRITING: Final = threading.Lock()
"""A call that waits and the end of its job write the same picture at about the same time: whoever
comes second must find it whole."""


@dataclass(frozen=True)
class Target:
    """Where the pictures of a job go.

    Attributes:
        path: The file; several pictures get -1, -2, ... before its suffix.
        overwrite: Whether an existing file may be replaced.
    """

    path: Path
    overwrite: bool = False

    @classmethod
    def check(
        cls,
        studio: Studio,
        text: str,
        output_format: OutputFormat,
        num_images: int,
        overwrite: bool,
    ) -> Self:
        """Check the path that a call names, before anything is drawn.

        Raises:
            InvalidRequest: Nothing may be written there, or the file exists.
        """
        if not studio.reads_paths:
            raise _refused(
                "this server does not write to the caller's disk",
                hint="Leave it out: the download_url of the result is where the picture is.",
            )
        roots = [root.expanduser().resolve() for root in studio.castmate.settings.image_roots]
        allowed = f"a path in {', '.join(map(str, roots))}"
        if not roots or not text.strip() or "\0" in text:
            raise _refused(f"{text!r} is no path", allowed)
        path = Path(text.strip()).expanduser()
        path = path if path.is_absolute() else roots[0] / path
        allowed += f", such as {_free(roots[0] / path.name)}"
        if path.suffix.lower() not in _SUFFIXES[output_format]:
            raise _refused(
                f"{path.name!r} does not end in {_SUFFIXES[output_format][0]}",
                allowed,
                f"Or set output_format, which is {output_format}.",
            )
        try:
            folder = path.parent.resolve(strict=True)
        except OSError as error:
            raise _refused(f"{path.parent} is no folder ({error.strerror})", allowed) from None
        if not any(folder.is_relative_to(root) for root in roots):
            raise _refused(f"{path} is outside the folders that may be used", allowed)
        target = cls(folder / path.name, overwrite)
        for place in target.places(num_images):
            if place.is_symlink() or (place.exists() and not place.is_file()):
                raise _refused(f"{place} is no plain file", allowed)
            if place.exists() and not overwrite:
                free = _free(place)
                raise _refused(f"{place} is there already", str(free), "Or set overwrite true.")
        return target

    @classmethod
    def of(cls, job: Prediction) -> Self | None:
        """The target recorded with a job, if its call named one."""
        try:
            values = json.loads(job.note or "null")
            return cls(Path(values["save_to"]), bool(values["overwrite"]))
        except (ValueError, TypeError, KeyError):  # another door's note, or none
            return None

    @property
    def note(self) -> str:
        """The form in which it is recorded with its job."""
        return json.dumps({"save_to": str(self.path), "overwrite": self.overwrite})

    def places(self, num_images: int) -> list[Path]:
        """The path of each picture."""
        if num_images == 1:
            return [self.path]
        stem = self.path.stem
        return [self.path.with_stem(f"{stem}-{number}") for number in range(1, num_images + 1)]

    def write(self, pictures: Sequence[bytes]) -> tuple[list[str], list[str]]:
        """Write what is not there yet.

        Returns:
            The paths of the written pictures, and a sentence for each that could not be written.
        """
        written, failed = [], []
        with _WRITING:
            for place, data in zip(self.places(len(pictures)), pictures, strict=True):
                try:
                    _write(place, data, self.overwrite)
                    written.append(str(place))
                except FileExistsError:
                    failed.append(
                        f"{place} was there when the picture was finished, so it was not saved."
                    )
                except OSError as error:
                    failed.append(f"{place} could not be written: {error.strerror}.")
        return written, failed


async def save(
    studio: Studio, job: Prediction, target: Target | None = None
) -> tuple[list[str], list[str]]:
    """Write the pictures of a finished job where its call wanted them.

    Args:
        studio: Has the job.
        job: The job as last read.
        target: Where to; by default the target recorded with the job.

    Returns:
        The paths of the written pictures, and a sentence for each that could not be written.
    """
    target = target or Target.of(job)
    if target is None or not studio.reads_paths or not job.shown:
        return [], []
    data = [await studio.castmate.storage.get(image.name) for image in job.shown]
    return await asyncio.to_thread(target.write, data)


def _write(place: Path, data: bytes, overwrite: bool) -> None:
    """Write a whole file or none; without `overwrite`, only if no other file is there."""
    if place.parent.resolve(strict=True) != place.parent or place.is_symlink():
        raise OSError(None, "a link leads elsewhere")
    if place.is_file() and place.read_bytes() == data:  # an earlier call wrote it
        return
    if overwrite:
        write_atomically(place, data)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(place, flags, 0o644)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
    except OSError:
        place.unlink(missing_ok=True)
        raise


def _free(path: Path) -> Path:
    number, found = 1, path
    while os.path.lexists(found):
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found


def _refused(message: str, allowed: str = "", hint: str = "") -> InvalidRequest:
    return InvalidRequest([Problem("save_to", message, allowed, hint)])
