"""Files that appear whole or not at all, and folders that only their owner can open."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees part of it, not even after a power failure.

    Raises:
        OSError: As for `open_atomically`.
    """
    with open_atomically(path) as stream:
        stream.write(data)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` when the block ends; an error leaves the old one.

    A link stays a link: its target is replaced. The new file has the mode and, where permitted,
    the owner of the old one.

    Raises:
        OSError: The folder is missing, full or not writable, or `path` is not a regular file; an
            existing file stays as it was.
    """
    check_replaceable(path)
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as stream:
            yield stream
            stream.flush()
            with suppress(FileNotFoundError):
                _resemble(part, target.stat())
            os.fsync(stream.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def make_private_folder(folder: Path) -> None:
    """Make a folder and its missing parents, so that only their owner can look inside.

    The umask has no effect. An existing folder keeps its mode, which its owner chose.

    Raises:
        OSError: It cannot be made.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        with suppress(FileExistsError):  # another process was quicker
            place.mkdir(mode=0o700)
            set_mode(place, 0o700)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def make_private_file(path: Path) -> None:
    """Make an empty file that only its owner can read, unless the file exists.

    Raises:
        OSError: It cannot be made.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        set_mode(path, 0o600)


def set_mode(path: Path, mode: int) -> None:
    """Set the mode of a file or folder, if the file system has modes; FAT has none.

    Raises:
        OSError: It is not there.
    """
    with suppress(PermissionError):
        path.chmod(mode)


def check_replaceable(path: Path) -> None:
    """Check that a path leads to nothing that a file must not replace, such as a device or folder.

    Raises:
        OSError: It leads to a device, pipe, socket or folder, or cannot be examined.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def _resemble(part: Path, old: os.stat_result) -> None:
    with suppress(PermissionError):
        os.chown(part, old.st_uid, old.st_gid)
    set_mode(part, stat.S_IMODE(old.st_mode))
