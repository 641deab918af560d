"""One generation, from its submission to its pictures; a restart in between loses nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .api import Api
from .errors import CastmateError, Lost, NoEvents, Refused
from .events import Event

LOST_S = 60.0  # for a server that restarts
PAUSE_S = 1.0  # between two tries, and two looks where there are no events
CHECK_S = 0.05
CANCEL_S = 5.0
TRIES = 1000
FAILED = ("failed", "cancelled", "timeout", "deleted")

Report = Callable[[Event], Awaitable[None]]
"""Gets every event but the end."""
Check = Callable[[], None]
"""Called twenty times a second and at every event; raises to stop the work."""

# How often a request has failed: the next time it is submitted it is a new one.
_failed: dict[str, int] = {}


@dataclass(frozen=True)
class Drawn:
    """Finished pictures.

    Attributes:
        pictures: Their files.
        ids: Under which the server keeps them.
        seeds: That make each of them again.
        warnings: What was ignored, cut or replaced.
    """

    pictures: tuple[bytes, ...]
    ids: tuple[str, ...]
    seeds: tuple[int, ...]
    warnings: tuple[str, ...] = ()


class Reference:
    """Who is drawn: a picture, sent to the server when it is needed, or the id of one there."""

    def __init__(self, source: bytes | str) -> None:
        self._source, self._sending = source, asyncio.Lock()
        self.digest = hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else source

    async def address(self, api: Api) -> str:
        """What the server takes as `image`."""
        async with self._sending:
            if isinstance(self._source, bytes):
                self._source = await api.upload(self._source)
            return self._source


async def draw(
    api: Api, reference: Reference, inputs: Mapping[str, Any], report: Report, check: Check
) -> Drawn:
    """Submit a generation, or find the one that was submitted before, and wait for its pictures.

    When `check` raises, or the task is cancelled, the server stops before its next step.

    Args:
        api: The server.
        reference: Who is drawn.
        inputs: Of the model, besides `image`.
        report: Gets each event.
        check: Asked whether to stop.

    Raises:
        Lost: The server is away for a minute; the prediction goes on there when it is back.
        Refused: The server does not take it.
        CastmateError: It failed, and why.
    """
    digest = _digest(api.url, reference, inputs)
    for _ in range(2):
        body = {**inputs, "image": await reference.address(api)}
        prediction = await _submit(api, body, digest, check)
        following = _follow(api, prediction, report, check)
        final = await _stoppable(api, prediction["id"], check, following)
        if final["status"] in FAILED:
            _failed[digest] = _failed.get(digest, 0) + 1
            raise CastmateError(final.get("error") or f"The prediction is {final['status']}.")
        try:
            return await _collect(api, final)
        except Refused as error:  # it was made before, and its pictures are removed by now
            if error.status not in (403, 404, 410):
                raise
            _failed[digest] = _failed.get(digest, 0) + 1
    raise CastmateError("The server removes its pictures before they can be fetched.")


async def _submit(api: Api, body: Mapping[str, Any], digest: str, check: Check) -> dict[str, Any]:
    """The same inputs are the same prediction, unless that one has failed."""
    for number in range(_failed.get(digest, 0), TRIES):
        check()
        try:
            prediction = await api.submit(body, f"comfyui-{digest}-{number}")
        except Refused as error:
            if error.status != 409:  # another release of the server made another request of it
                raise
        else:
            if prediction["status"] not in FAILED:
                return prediction
        _failed[digest] = number + 1
    raise CastmateError(f"This request has failed {TRIES} times; change something in it.")


async def _stoppable(
    api: Api, prediction_id: str, check: Check, work: Awaitable[dict[str, Any]]
) -> dict[str, Any]:
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            check()
            await asyncio.wait((task,), timeout=CHECK_S)
        return task.result()
    except (Lost, Refused):
        raise
    except BaseException:  # whoever stops us wants no picture
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        try:
            await asyncio.wait_for(api.cancel(prediction_id), CANCEL_S)
        except (CastmateError, asyncio.TimeoutError):
            pass
        raise


async def _follow(
    api: Api, prediction: dict[str, Any], report: Report, check: Check
) -> dict[str, Any]:
    """The prediction once it is final."""
    last: str | None = None
    lost_since: float | None = None
    while True:
        try:
            async for event in api.events(prediction["id"], last):
                lost_since, last = None, event.id or last
                if event.name == "end":
                    return event.data
                check()
                await report(event)
        except NoEvents:
            try:
                found = await api.result(prediction["id"])
            except Lost as error:
                lost_since = _lost(lost_since, error)
            else:
                lost_since = None
                if found["status"] in (*FAILED, "completed"):
                    return found
        except Lost as error:
            lost_since = _lost(lost_since, error)
        await asyncio.sleep(PAUSE_S)


def _lost(since: float | None, error: Lost) -> float:
    now = time.monotonic()
    if since is not None and now - since > LOST_S:
        raise Lost(
            f"{error} What was submitted is not lost: queue the workflow again when the server is "
            "back, and it goes on where it was."
        ) from None
    return now if since is None else since


async def _collect(api: Api, final: dict[str, Any]) -> Drawn:
    pictures = [await api.download(url) for url in final["outputs"]]
    return Drawn(
        tuple(pictures),
        tuple(f"img_{final['id']}-{number}" for number in range(len(pictures))),
        tuple(final.get("seeds") or ()),
        tuple(final.get("warnings") or ()),
    )


def _digest(url: str, reference: Reference, inputs: Mapping[str, Any]) -> str:
    """What makes two runs of a workflow the same one."""
    body = json.dumps({**inputs, "image": reference.digest, "server": url}, sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()[:40]
