"""How commands report errors, and their exit codes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import typer

from castmate.errors import CastmateError, InvalidRequest, SettingsError

OK, FAILED, BAD_REQUEST, INTERRUPTED = 0, 1, 2, 130


@contextlib.contextmanager
def reporting(*, as_json: bool = False) -> Iterator[None]:
    """Turn Castmate's errors into one clear message and an exit code; any other error is a bug."""
    try:
        yield
    except CastmateError as error:
        if as_json:
            print_json({"error": error.as_dict()})
        else:
            typer.echo(f"Error: {error}", err=True)
        wrong_call = isinstance(error, InvalidRequest | SettingsError)
        raise typer.Exit(BAD_REQUEST if wrong_call else FAILED) from None
    except KeyboardInterrupt:
        typer.echo("Cancelled: nothing was written.", err=True)
        raise typer.Exit(INTERRUPTED) from None


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(value, indent=2))
