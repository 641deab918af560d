"""Options that several commands share, or whose help comes from a field; the progress bar."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel

from castmate.defaults import Defaults
from castmate.validation import describe_range

if TYPE_CHECKING:
    from castmate.clients.base import ProgressCallback

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
BundleName = Annotated[
    str | None,
    typer.Option("--bundle", help="A shipped model's name or a bundle's folder. [CASTMATE_BUNDLE]"),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where predictions, pictures and keys are kept. [CASTMATE_DATA_DIR]"),
]
Port = Annotated[int | None, typer.Option(help="Port. [CASTMATE_PORT, 8787]")]


def option(model: type[BaseModel], name: str, *flags: str) -> Any:
    """An option with the description, range and default of a field.

    Args:
        model: The request's model.
        name: The field.
        flags: The option's spellings; by default the field's name.
    """
    field, allowed = model.model_fields[name], describe_range(model, name)
    numeric = f" ({allowed})" if allowed.startswith(("a number", "a whole number")) else ""
    shown = "the model's" if name in Defaults.model_fields else field.default is not None
    return typer.Option(*flags, help=f"{field.description}{numeric}", show_default=shown)


@contextlib.contextmanager
def progress_bar() -> Iterator[ProgressCallback]:
    """A bar on stderr if that is a terminal; silent in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("Drawing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda progress: bar.update(task, completed=progress.step, total=progress.total)
