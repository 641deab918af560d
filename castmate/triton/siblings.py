"""Signs of life of all instances of the model in one Triton server.

A probe reaches only the instance that Triton chooses, and Triton reports ready even if an
instance's process is dead. So each instance leaves signs of life that the others can see, and any
of them can answer for all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path


class Siblings:
    """The instances of this server: one file each, in the server's own folder."""

    def __init__(self, name: str, *, silent_after_s: float, folder: Path | None = None) -> None:
        """Join the instances.

        Args:
            name: This instance's name.
            silent_after_s: How old the last sign of a living instance may be.
            folder: Holds the signs; by default one for the parent process, the server.
        """
        self._silent_after_s = silent_after_s
        self._folder = folder or _folder_of_server()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._own = self._folder / name
        self.beat()

    def beat(self) -> None:
        """Show that this instance is alive."""
        with contextlib.suppress(OSError):  # a full disk must not stop the model
            self._own.touch(mode=0o600)

    def silent(self) -> list[str]:
        """Names of the instances that show no sign of life."""
        latest = time.time() - self._silent_after_s
        found = []
        for path in sorted(self._folder.glob("*")):
            with contextlib.suppress(FileNotFoundError):  # it has just left
                if path != self._own and path.stat().st_mtime < latest:
                    found.append(path.name)
        return found

    def leave(self) -> None:
        """Remove this instance, which ends normally."""
        self._own.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are still there
            self._folder.rmdir()


def _folder_of_server() -> Path:
    """A folder named by the server's process id and start time, since process ids are reused."""
    server, base = os.getppid(), Path(tempfile.gettempdir())
    prefix = f"castmate-{os.getuid()}-"
    for left in base.glob(f"{prefix}*"):  # left by servers that were killed
        pid, _, start = left.name.removeprefix(prefix).partition("-")
        if _started(pid) != start:
            shutil.rmtree(left, ignore_errors=True)
    return base / f"{prefix}{server}-{_started(str(server))}"


def _started(pid: str) -> str:
    """When a process started, in ticks since boot; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
