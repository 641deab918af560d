"""The `castmate` command, run in this process or in one of its own."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner, Result

from castmate import cli


def castmate_(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments, catch_exceptions=False)


def modules_of(*arguments: str) -> set[str]:
    """Run the command in a process of its own, and return the names of the modules it loaded."""
    code = (
        "import atexit, sys; from castmate.cli import main;"
        "atexit.register(lambda: print('MODULES', *sys.modules, file=sys.stderr)); main()"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(done.stderr.partition("MODULES ")[2].split())
