"""`GET /api/v3/predictions/{id}/events`: a prediction as it goes on, as server-sent events.

The id of an event is what the caller knows by then, "steps-pictures" or "end". Whoever comes back
with it (`Last-Event-ID`) gets what is new, whichever process answers: nothing is kept for it.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import Final, Self

from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from castmate.clients.base import Progress
from castmate.errors import CastmateError
from castmate.images import preview
from castmate.jobs.following import follow
from castmate.jobs.predictions import Prediction, State
from castmate.schema import GeneratedImage
from castmate_mcp.rest.models import PredictionOut, PreviewOut, StatusOut, StepOut
from castmate_mcp.rest.operation import Call
from castmate_mcp.rest.presenter import for_callers, identity_of
from castmate_mcp.rest.submit import prediction_out

EVENTS: Final[dict[str, type[BaseModel]]] = {
    "status": StatusOut,
    "step": StepOut,
    "preview": PreviewOut,
    "end": PredictionOut,
}
"""What may come, by its name."""

HEARTBEAT_S: Final = 15.0
RETRY_MS: Final = 3000  # when to come back after the server has ended
END: Final = "end"


async def events(call: Call) -> Response:
    """`GET /api/v3/predictions/{id}/events`: its steps, previews and end, as they happen."""
    ledger, name = call.gateway.castmate.ledger, call.request.path_params["id"]
    prediction = await ledger.get(name, call.key.name)  # else 404, before the stream begins
    last = call.request.headers.get("last-event-id", "")
    if last == END and prediction.state.final:
        return Response(status_code=204)  # a browser then does not come back
    following = follow(ledger, name, call.key.name, until=call.gateway.draining)
    stream = _stream(call, following, _Known.parse(last))
    return Stream(stream, call.gateway.gate.streams.hold_for(call.key))


class Stream(EventSourceResponse):
    """Server-sent events that hold a place among the streams of their key while they go on."""

    def __init__(
        self, events: AsyncGenerator[ServerSentEvent], place: AbstractContextManager[None]
    ) -> None:
        heartbeat = ServerSentEvent(comment="still there")
        super().__init__(events, ping=HEARTBEAT_S, ping_message_factory=lambda: heartbeat, sep="\n")
        self._events, self._place = events, place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            async with aclosing(self._events):
                await super().__call__(scope, receive, send)


@dataclass
class _Known:
    """What a caller knows of a prediction.

    Attributes:
        step: Steps done.
        pictures: Finished pictures.
        status: What it was told last.
    """

    step: int = -1
    pictures: int = 0
    status: StatusOut | None = None

    @classmethod
    def parse(cls, event_id: str) -> Self:
        """From the id of an event; everything is new where it is none."""
        match = re.fullmatch(r"(-1|[0-9]{1,6})-([0-9]{1,2})", event_id)
        return cls(int(match[1]), int(match[2])) if match else cls()

    @property
    def event_id(self) -> str:
        return f"{self.step}-{self.pictures}"


async def _stream(
    call: Call, following: AsyncGenerator[Prediction | Progress], known: _Known
) -> AsyncGenerator[ServerSentEvent]:
    """What is new to a caller, until the end of the prediction or of this server."""
    try:
        async with aclosing(following):
            async for found in following:
                if isinstance(found, Prediction) and found.state.final:
                    answer = await prediction_out(call, found)
                    yield event(END, answer, END)
                    return
                if (status := _status(found)) != known.status:
                    known.status = status
                    yield event("status", status)
                if isinstance(found, Progress):
                    async for made in _progress(found, known):
                        yield made
    except CastmateError:  # the ledger is away, or the prediction: whoever comes back is told which
        pass
    yield ServerSentEvent(retry=RETRY_MS, comment="come back")


def _status(found: Prediction | Progress) -> StatusOut:
    if isinstance(found, Progress):
        running, why = not found.waits_for, found.waits_for
    else:
        running = found.state is State.PROCESSING
        why = "" if running or not found.waits_for else str(found.waits_for["message"])
    return StatusOut(
        status="processing" if running else "created", waiting_for=for_callers(why) or None
    )


async def _progress(progress: Progress, known: _Known) -> AsyncGenerator[ServerSentEvent]:
    """Steps never go back: a second attempt is shown once it is further than the first."""
    while len(progress.images) > known.pictures:
        shown = await asyncio.to_thread(_preview, known.pictures, progress.images[known.pictures])
        known.pictures += 1
        yield event("preview", shown, known.event_id)
    if progress.step > known.step and not progress.waits_for:
        known.step = progress.step
        yield event("step", StepOut(step=progress.step, total=progress.total), known.event_id)


def _preview(number: int, image: GeneratedImage) -> PreviewOut:
    small = base64.b64encode(preview(image.data)).decode()
    return PreviewOut(
        number=number,
        width=image.width,
        height=image.height,
        seed=image.seed,
        has_nsfw=image.has_nsfw,
        identity=identity_of(image.identity),
        image=f"data:image/jpeg;base64,{small}",
    )


def event(name: str, data: BaseModel, event_id: str | None = None) -> ServerSentEvent:
    """One event with its data as JSON."""
    return ServerSentEvent(data.model_dump_json(exclude_none=True), event=name, id=event_id)
