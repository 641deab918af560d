"""Finished pictures by their ids: renamed, deleted, and restored for a day."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import Response

from castmate.jobs.outputs import one_line
from castmate.jobs.predictions import StoredImage
from castmate_mcp.http.envelope import Refusal, success
from castmate_mcp.http.ids import ImageName
from castmate_mcp.rest.models import Deleted, Named, NameQuery
from castmate_mcp.rest.operation import Call


async def delete_picture(call: Call) -> Response:
    """`DELETE /api/v3/pictures/{id}`: kept for a day; the others of its prediction stay."""
    name, _ = await _change(call, call.gateway.castmate.outputs.discard)
    return success(Deleted(id=str(name)))


async def rename_picture(call: Call) -> Response:
    """`PATCH /api/v3/pictures/{id}`: it is found by the new name, too."""
    title = one_line((await call.json(NameQuery)).name)
    outputs = call.gateway.castmate.outputs
    name, image = await _change(
        call, lambda prediction_id, number, key: outputs.rename(prediction_id, number, title, key)
    )
    return success(Named(id=str(name), name=image.title))


async def restore_picture(call: Call) -> Response:
    """`POST /api/v3/pictures/{id}/restore`: within a day of its deletion."""
    name, image = await _change(call, call.gateway.castmate.outputs.restore)
    return success(Named(id=str(name), name=image.title))


async def _change(
    call: Call, change: Callable[[str, int, str], Awaitable[StoredImage]]
) -> tuple[ImageName, StoredImage]:
    text = call.request.path_params["id"]
    name = ImageName.parse(text)
    try:
        if name is None:
            raise FileNotFoundError(text)
        return name, await change(name.prediction_id, name.number, call.key.name)
    except FileNotFoundError:
        raise no_picture(text) from None


def no_picture(text: str) -> Refusal:
    """There is nothing at an address."""
    return Refusal(
        404,
        f"There is no picture {text!r}. Ids are img_, the id of a prediction, and -0 for its "
        "first picture, such as img_0193...-0.",
    )
