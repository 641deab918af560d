"""`castmate show`: how a picture was drawn, according to its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from castmate.errors import ImageRejected
from castmate.options import AsJson
from castmate.paths import expand
from castmate.reporting import print_json, reporting


def show(
    file: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP file that Castmate has drawn.")],
    as_json: AsJson = False,
) -> None:
    """Print the request that a picture was drawn from, as its file says; nothing vouches for it."""
    from castmate.picture_metadata import PictureMetadata  # loads Pillow

    with reporting(as_json=as_json):
        found = PictureMetadata.read(_read(expand(file)), str(file))
        if as_json:
            print_json(found.as_dict())
        else:
            typer.echo(found.as_text())
            drawn_by = f"{found.client} ({found.model})" if found.client else found.model
            typer.echo(f"Reference: {found.request.image}. Drawn by {drawn_by}.")


def _read(path: Path) -> bytes:
    """The bytes of a picture file.

    Raises:
        ImageRejected: It cannot be read, or is larger than any accepted picture.
    """
    from castmate.images import MAX_BYTES

    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageRejected(f"{path} cannot be read ({error.strerror})") from None
    if len(data) > MAX_BYTES:
        raise ImageRejected(
            f"{path} has more than {MAX_BYTES // 2**20} MiB",
            allowed=f"at most {MAX_BYTES // 2**20} MiB",
        )
    return data
