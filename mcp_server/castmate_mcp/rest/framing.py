"""Shows what part of a reference is drawn from, before anything is saved or drawn."""

from __future__ import annotations

import asyncio
import base64
from typing import Final

from starlette.responses import Response

from castmate.framing import Framed
from castmate.images import Reference, small_jpeg
from castmate.pipeline.framing import Framer
from castmate.schema import Matting
from castmate_mcp.http.envelope import success
from castmate_mcp.rest.operation import Call
from castmate_mcp.rest.picture_models import FramedOut, PreviewQuery

_ELSEWHERE: Final = (
    "What draws here cannot be asked before it draws: this is the framing without its matte graph, "
    "which may find a character where this finds none, and without its margins."
)


async def preview_character(call: Call) -> Response:
    """`POST /api/v3/characters/preview`: how its character is found; nothing is kept."""
    query = await call.json(PreviewQuery)
    reference = await call.gateway.references.find(query.image, call.base_url, call.key, _at_once)
    framed = await _framed(call, reference, query.enable_matting)
    data = await asyncio.to_thread(small_jpeg, framed.image)
    return success(
        FramedOut(
            framing=framed.reference.framing,
            box=[*framed.reference.box],
            width=reference.image.width,
            height=reference.image.height,
            image=f"data:image/jpeg;base64,{base64.b64encode(data).decode()}",
            warnings=[*framed.warnings],
        )
    )


async def _framed(call: Call, reference: Reference, matting: Matting) -> Framed:
    if (framed := await call.gateway.castmate.router.frame(reference, matting)) is not None:
        return framed
    found = await asyncio.to_thread(Framer(None, (0, 0)).frame, reference, matting)
    return Framed(*found, (_ELSEWHERE,))


async def _at_once() -> None:
    """Nothing is submitted, so no place in the queue is needed."""
