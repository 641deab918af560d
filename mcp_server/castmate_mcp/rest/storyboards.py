"""Series of pictures: takes them, looks at them, follows, stops and removes them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Self

from pydantic import BaseModel
from sse_starlette import ServerSentEvent
from starlette.responses import Response

from castmate.clients.base import Progress
from castmate.errors import CastmateError
from castmate.jobs.following import follow_series
from castmate.jobs.predictions import State
from castmate.jobs.scenes import Scene, Storyboard
from castmate.jobs.storyboards import sheet_name
from castmate.storyboard import StoryboardRequest
from castmate.times import rfc3339
from castmate_mcp.http.body import read_json
from castmate_mcp.http.envelope import Refusal, success
from castmate_mcp.rest.events import END, RETRY_MS, Stream, event
from castmate_mcp.rest.models import Deleted, StatusOut, StepOut
from castmate_mcp.rest.operation import Call
from castmate_mcp.rest.presenter import Presenter, for_callers, identity_of
from castmate_mcp.rest.storyboard_models import SceneOut, StoryboardOut
from castmate_mcp.rest.submit import accepted
from castmate_mcp.rest.webhooks import check_target

EVENTS: Final[dict[str, type[BaseModel]]] = {
    "status": StatusOut,
    "step": StepOut,
    "scene": SceneOut,
    END: StoryboardOut,
}
"""What may come, by its name."""

_PAGE: Final = 20


async def submit(call: Call) -> Response:
    """`POST /api/v3/storyboards`: whole or not at all; the same again draws what failed."""
    gateway, key = call.gateway, call.key
    castmate = gateway.castmate
    request = StoryboardRequest.parse(accepted(await read_json(call.request)))
    webhook = call.request.query_params.get("webhook") or None
    if webhook is not None:
        check_target(webhook, allow_http=castmate.settings.allow_http)
    reference = await gateway.references.find(
        request.image,
        call.base_url,
        key,
        lambda: castmate.ledger.check_room(key.name, key.concurrency),
    )
    taken = await castmate.storyboards.submit(
        request,
        reference,
        key_name=key.name,
        idempotency_key=call.request.headers.get("idempotency-key"),
        weight=key.weight,
        max_unfinished=key.concurrency,
        also=castmate.webhooks.registration(webhook, call.base_url) if webhook else None,
    )
    gateway.metrics.submitted.labels("rest").inc(len(request.scenes))
    return success(storyboard_out(call, taken))


async def result(call: Call) -> Response:
    """`GET /api/v3/storyboards/{id}`: as it is now, at once."""
    return success(storyboard_out(call, await find(call)))


async def list_storyboards(call: Call) -> Response:
    """`GET /api/v3/storyboards`: 20 of one's own, the newest first."""
    before = call.request.query_params.get("before") or None
    found = await call.gateway.castmate.storyboards.list(call.key.name, before=before, limit=_PAGE)
    return success([storyboard_out(call, one) for one in found])


async def cancel(call: Call) -> Response:
    """`POST /api/v3/storyboards/{id}/cancel`: what is finished stays."""
    name = call.request.path_params["id"]
    stopped = await call.gateway.castmate.storyboards.cancel(name, call.key.name)
    return success(storyboard_out(call, stopped))


async def delete(call: Call) -> Response:
    """`DELETE /api/v3/storyboards/{id}`: with its pictures."""
    name = call.request.path_params["id"]
    if not await call.gateway.castmate.storyboards.delete(name, call.key.name):
        raise Refusal(
            409,
            f"Storyboard {name} is not finished; cancel it first: "
            f"POST /api/v3/storyboards/{name}/cancel.",
        )
    return success(Deleted(id=name))


async def events(call: Call) -> Response:
    """`GET /api/v3/storyboards/{id}/events`: its steps, scenes and end, as they happen."""
    castmate, found = call.gateway.castmate, await find(call)
    last = call.request.headers.get("last-event-id", "")
    if last == END and found.state.final:
        return Response(status_code=204)  # a browser then does not come back
    following = follow_series(
        castmate.storyboards,
        castmate.ledger.database.hub,
        found.id,
        call.key.name,
        until=call.gateway.draining,
    )
    stream = _stream(call, following, _Known.parse(last))
    return Stream(stream, call.gateway.gate.streams.hold_for(call.key))


@dataclass
class _Known:
    """What a caller knows of a series.

    Attributes:
        step: Steps done.
        scenes: The numbers of those that have ended.
        status: What it was told last.
    """

    step: int = -1
    scenes: set[int] = field(default_factory=set)
    status: StatusOut | None = None

    @classmethod
    def parse(cls, event_id: str) -> Self:
        """From the id of an event; everything is new where it is none."""
        match = re.fullmatch(r"(-1|[0-9]{1,6})-([0-9a-f]{1,4})", event_id)
        if match is None:
            return cls()
        ended = int(match[2], 16)
        return cls(int(match[1]), {number for number in range(1, 17) if ended >> number - 1 & 1})

    @property
    def event_id(self) -> str:
        ended = sum(1 << number - 1 for number in self.scenes)
        return f"{self.step}-{ended:x}"


async def _stream(
    call: Call, following: AsyncGenerator[Storyboard | Progress], known: _Known
) -> AsyncGenerator[ServerSentEvent]:
    """What is new to a caller, until the end of the series or of this server."""
    try:
        async with aclosing(following):
            async for found in following:
                if isinstance(found, Progress):
                    if found.step > known.step and not found.waits_for:
                        known.step = found.step
                        step = StepOut(step=found.step, total=found.total)
                        yield event("step", step, known.event_id)
                    continue
                for scene in found.scenes:
                    if scene.prediction.state.final and scene.number not in known.scenes:
                        known.scenes.add(scene.number)
                        yield event("scene", _scene(call, scene), known.event_id)
                if found.state.final:
                    yield event(END, storyboard_out(call, found), END)
                    return
                status = StatusOut(
                    status="created" if found.state is State.CREATED else "processing",
                    waiting_for=_waiting_for(found),
                )
                if status != known.status:
                    known.status = status
                    yield event("status", status)
    except CastmateError:  # the ledger is away, or the series: whoever comes back is told which
        pass
    yield ServerSentEvent(retry=RETRY_MS, comment="come back")


async def find(call: Call) -> Storyboard:
    """The series of the path."""
    name = call.request.path_params["id"]
    return await call.gateway.castmate.storyboards.get(name, call.key.name)


def storyboard_out(call: Call, found: Storyboard) -> StoryboardOut:
    """A series on the wire; its sheet is made when somebody looks at it."""
    gateway, sheet = call.gateway, sheet_name(found)
    expires = [one.prediction.expires for one in found.scenes if one.prediction.expires]
    results = [one.prediction.result for one in found.scenes if one.prediction.result]
    return StoryboardOut(
        id=found.id,
        layout=found.request.layout,
        status=Presenter.to(gateway, call.request).status(found.state),
        created_at=rfc3339(found.created),
        scenes=[_scene(call, scene) for scene in found.scenes],
        sheet=gateway.file_url(call.base_url, sheet) if sheet else None,
        cost_usd=found.cost_usd,
        warnings=[*dict.fromkeys(one for result in results for one in result.warnings)],
        waiting_for=_waiting_for(found),
        expires_at=rfc3339(min(expires)) if expires else None,
    )


def _scene(call: Call, scene: Scene) -> SceneOut:
    prediction, image = scene.prediction, scene.image
    return SceneOut(
        number=scene.number,
        text=scene.text,
        prediction_id=prediction.id,
        status=Presenter.to(call.gateway, call.request).status(prediction.state),
        output=call.gateway.file_url(call.base_url, image.name) if image else None,
        seed=prediction.request.seed,
        has_nsfw=bool(image and image.has_nsfw),
        identity=identity_of(image.identity) if image else None,
        error=for_callers(str((prediction.error or {}).get("message", ""))),
    )


def _waiting_for(found: Storyboard) -> str | None:
    waits = (one.prediction.waits_for for one in found.scenes)
    why = next((one for one in waits if one), None)
    return for_callers(str(why["message"])) if why else None
