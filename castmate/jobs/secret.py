"""The secret with which a machine signs addresses of files."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from castmate.errors import SettingsError
from castmate.files import make_private_file, make_private_folder, write_atomically

SECRET: Final = "files.secret"
SECRET_BYTES: Final = 32


def read_secret(data_dir: Path) -> bytes:
    """The secret with which this machine signs addresses of files.

    Raises:
        FileNotFoundError: None was drawn yet.
        SettingsError: It is too short to keep anything secret, or cannot be read.
    """
    path = data_dir / SECRET
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read ({error.strerror}). Make it readable for the user who runs "
            "Castmate."
        ) from None
    if len(secret) < SECRET_BYTES:
        raise SettingsError(
            f"{path} holds {len(secret)} bytes instead of {SECRET_BYTES}: whoever guesses it can "
            "compute the address of every picture. Delete the file; the next start draws another "
            "secret, and addresses that were given out before end."
        )
    return secret


def own_secret(data_dir: Path) -> bytes:
    """The secret of this machine, drawn at first use; processes that start together agree."""
    make_private_folder(data_dir)
    with contextlib.suppress(FileNotFoundError):
        return read_secret(data_dir)
    part = data_dir / f".{SECRET}.{secrets.token_hex(8)}"
    make_private_file(part)
    try:
        write_atomically(part, secrets.token_bytes(SECRET_BYTES))
        _appear_once(part, data_dir / SECRET)
    finally:
        part.unlink(missing_ok=True)
    return read_secret(data_dir)


def _appear_once(part: Path, path: Path) -> None:
    """Give a whole file its name, unless another process was quicker."""
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links: the last one of two wins
        if not path.exists():
            part.replace(path)
