"""A series is changed, one scene or its order, and taken away as one file."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse

from castmate.contact_sheet import Cell
from castmate.jobs import editing
from castmate.jobs.scenes import Scene, Storyboard
from castmate.storyboard_files import archive, pdf
from castmate_mcp.http.envelope import Refusal, success
from castmate_mcp.rest.operation import Call
from castmate_mcp.rest.storyboard_models import ExportQuery, OrderQuery, RedrawQuery
from castmate_mcp.rest.storyboards import find, storyboard_out

EXPORTS = ("image/png", "application/pdf", "application/zip")


async def redraw(call: Call) -> Response:
    """`POST /api/v3/storyboards/{id}/scenes/{number}/redraw`: with another seed, or words."""
    castmate, key, params = call.gateway.castmate, call.key, call.request.path_params
    query = await call.json(RedrawQuery)
    changed = await editing.redraw(
        castmate.ledger,
        params["id"],
        params["number"],
        key_name=key.name,
        seed=query.seed,
        text=query.text.strip(),
        idempotency_key=call.request.headers.get("idempotency-key"),
        weight=key.weight,
        max_unfinished=key.concurrency,
    )
    call.gateway.metrics.submitted.labels("rest").inc()
    return success(storyboard_out(call, changed))


async def reorder(call: Call) -> Response:
    """`PATCH /api/v3/storyboards/{id}`: its scenes in another order; nothing is drawn."""
    order = (await call.json(OrderQuery)).order
    name = call.request.path_params["id"]
    ledger = call.gateway.castmate.ledger
    changed = await editing.reorder(ledger, name, order, key_name=call.key.name)
    return success(storyboard_out(call, changed))


async def export(call: Call) -> Response:
    """`GET /api/v3/storyboards/{id}/export`: the sheet, a page a scene, or all."""
    query = call.query(ExportQuery)
    found = await find(call)
    if not found.state.final:
        raise Refusal(409, f"Storyboard {found.id} is still being drawn; ask again when it ends.")
    if not any(scene.image for scene in found.scenes):
        raise Refusal(409, f"Storyboard {found.id} has no picture; submit it again to draw it.")
    file_name = f"storyboard-{found.id}.{query.format}"
    headers = {
        "content-disposition": f'attachment; filename="{file_name}"',
        "x-content-type-options": "nosniff",
        "cache-control": "private, no-store",  # its scenes may be drawn again
    }
    storage = call.gateway.castmate.storage
    if query.format == "zip":
        return StreamingResponse(_zip(call, found), headers=headers, media_type=EXPORTS[2])
    if query.format == "pdf":
        cells = [Cell(one.number, one.text, await _data(call, one)) for one in found.scenes]
        made = await asyncio.to_thread(pdf, cells, "Storyboard", found.created)
        return Response(made, headers=headers, media_type=EXPORTS[1])
    sheet = await call.gateway.castmate.storyboards.sheet(found)
    assert sheet is not None  # there are pictures, and nothing is left to draw
    return Response(await storage.get(sheet.name), headers=headers, media_type=EXPORTS[0])


async def _zip(call: Call, found: Storyboard) -> AsyncIterator[bytes]:
    castmate = call.gateway.castmate
    files = [
        (
            f"scene-{one.number:02}.{one.image.output_format}",
            functools.partial(castmate.storage.get, one.image.name),
        )
        for one in found.scenes
        if one.image
    ]
    if sheet := await castmate.storyboards.sheet(found):
        files.append(("sheet.png", functools.partial(castmate.storage.get, sheet.name)))
    about = found.request.model_dump(mode="json", exclude_none=True) | {
        "seeds": [one.prediction.request.seed for one in found.scenes]
    }
    async for piece in archive(files, about):
        yield piece


async def _data(call: Call, scene: Scene) -> bytes | None:
    if scene.image is None:
        return None
    try:
        return await call.gateway.castmate.storage.get(scene.image.name)
    except FileNotFoundError:
        return None
