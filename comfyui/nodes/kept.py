"""Finished pictures that the server keeps, by the ids that nodes and agents give."""

from __future__ import annotations

import re
from typing import Any

from comfy_api.latest import io

from ..client.api import Api
from ..client.errors import CastmateError
from .types import ServerLink

_ID = re.compile(r"(?:(?:img|job)_)?([0-9a-f]{32})(?:-(\d))?")
ALLOWED = "the id of a picture (img_...), or of a job for all of its pictures (job_...)"


def inputs() -> list[io.Input]:
    """What a node takes to find them."""
    return [
        io.String.Input("id", default="", tooltip=f"{ALLOWED[0].upper()}{ALLOWED[1:]}."),
        ServerLink.Input("server", optional=True),
    ]


def check(id: str | None) -> bool | str:
    """True, or what is wrong with an id; one that comes along a link is None until it is there."""
    return id is None or bool(_ID.fullmatch(id.strip())) or f"{id!r} is no id; write {ALLOWED}"


async def find(api: Api, id: str) -> tuple[dict[str, Any], slice]:
    """The prediction behind an id, and which of its outputs are meant.

    Raises:
        CastmateError: It is no id, or no picture of it is finished.
    """
    match = _ID.fullmatch(id.strip())
    if match is None:
        raise CastmateError(f"{id!r} is no id; write {ALLOWED}.")
    prediction = await api.result(match[1])
    number = match[2]
    chosen = slice(None) if number is None else slice(int(number), int(number) + 1)
    if not prediction["outputs"][chosen]:
        raise CastmateError(f"{id} has no finished picture at {api.url}.")
    return prediction, chosen
