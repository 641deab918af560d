"""Takes a generation, and in sync mode waits for it; whoever hangs up loses nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from castmate.errors import PredictionNotFound
from castmate.jobs.predictions import Prediction, StoredImage, hash_of
from castmate.schema import GenerateRequest
from castmate_mcp.http.abandoned import Same
from castmate_mcp.http.body import read_json
from castmate_mcp.http.envelope import Refusal, success
from castmate_mcp.rest.models import PredictionOut, Submission
from castmate_mcp.rest.operation import Call
from castmate_mcp.rest.presenter import SYNC_TIMEOUT_CODE, Presenter
from castmate_mcp.rest.webhooks import check_target

BASE64: Final = "base64"
"""The note of a prediction whose pictures are given as base64."""
_FLAGS: Final = {"enable_sync_mode", "enable_base64_output"}


async def submit(call: Call) -> Response:
    """`POST /api/v3/{owner}/{model}`: 200 with the prediction, as soon as it is durable."""
    gateway, key = call.gateway, call.key
    model = "{owner}/{model}".format(**call.request.path_params)
    if model not in gateway.models:
        raise Refusal(
            404,
            f"There is no model {model!r} here; there {_are(gateway.models)}. `GET /api/v3/models` "
            "tells their inputs.",
        )
    ledger = gateway.castmate.ledger
    submission = Submission.parse(accepted(await read_json(call.request)))
    webhook = _webhook(call.request, submission)
    if webhook is not None:
        check_target(webhook, allow_http=gateway.castmate.settings.allow_http)
    reference = await gateway.references.find(
        submission.image, call.base_url, key, lambda: ledger.check_room(key.name, key.concurrency)
    )
    request = GenerateRequest.model_validate(submission.model_dump(exclude=_FLAGS))
    asked = request.model_copy(update={"image": reference.sha256})
    same = (key.name, hash_of(asked), submission.enable_base64_output)
    if submission.enable_sync_mode and (known := gateway.abandoned.pop(same)):
        with contextlib.suppress(PredictionNotFound):  # removed meanwhile
            return await _when_finished(call, await ledger.get(known, key.name), same)
    prediction = await ledger.submit(
        request,
        reference,
        key_name=key.name,
        idempotency_key=call.request.headers.get("idempotency-key"),
        weight=key.weight,
        max_unfinished=key.concurrency,
        note=BASE64 if submission.enable_base64_output else None,
        also=gateway.castmate.webhooks.registration(webhook, call.base_url) if webhook else None,
    )
    gateway.metrics.submitted.labels("rest").inc()
    if not submission.enable_sync_mode:
        return success(await prediction_out(call, prediction))
    return await _when_finished(call, prediction, same)


def accepted(values: Mapping[str, Any]) -> dict[str, Any]:
    """What clients send, as we take it: null is what is left out."""
    return {name: value for name, value in values.items() if value is not None}


async def prediction_out(call: Call, prediction: Prediction) -> PredictionOut:
    """A prediction as this caller gets it.

    Raises:
        Overloaded: Too many want pictures as base64 at this moment.
        Unavailable: The storage cannot be reached.
    """
    outputs = None
    if prediction.note == BASE64 and prediction.result:
        outputs = await _as_base64(call, prediction.shown)
    return Presenter.to(call.gateway, call.request).present(prediction, outputs=outputs)


async def _as_base64(call: Call, images: Sequence[StoredImage]) -> list[str]:
    storage, outputs = call.gateway.castmate.storage, []
    num_bytes = 3 * sum(image.num_bytes for image in images)
    with call.gateway.gate.body_bytes.hold_for(call.key, num_bytes):
        for image in images:
            try:
                outputs.append(base64.b64encode(await storage.get(image.name)).decode())
            except FileNotFoundError:
                raise Refusal(404, "The pictures are no longer in the storage.") from None
    return outputs


async def _when_finished(call: Call, prediction: Prediction, same: Same) -> Response:
    """Wait for the end, the cap, the caller to hang up, or ourselves to end."""
    ledger, gateway = call.gateway.castmate.ledger, call.gateway
    waiting = asyncio.create_task(ledger.wait(prediction.id, gateway.sync_cap_s))
    hung_up = asyncio.create_task(_hung_up(call.request))
    ending = asyncio.create_task(gateway.draining.wait())
    try:
        await asyncio.wait((waiting, hung_up, ending), return_when=asyncio.FIRST_COMPLETED)
        prediction = waiting.result() if waiting.done() else await ledger.get(prediction.id)
    finally:
        for task in (waiting, hung_up, ending):
            task.cancel()
        await asyncio.gather(waiting, hung_up, ending, return_exceptions=True)
    if hung_up.done() and not hung_up.cancelled():
        # There are clients that give up after 10 s and ask again: they get this one.
        gateway.abandoned.add(same, prediction.id)
    answer = await prediction_out(call, prediction)
    if not prediction.state.final:
        answer.status, answer.code = "processing", SYNC_TIMEOUT_CODE
        answer.error = "Sync mode timed out; the prediction goes on. Ask for it by its id."
    return success(answer)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _webhook(request: Request, submission: Submission) -> str | None:
    webhook = request.query_params.get("webhook") or None
    if webhook is None:
        return None
    if submission.enable_base64_output or submission.enable_sync_mode:
        flag = "base64_output" if submission.enable_base64_output else "sync_mode"
        raise Refusal(400, f"`webhook` and `enable_{flag}` cannot be used together; leave out one.")
    return webhook


def _are(models: tuple[str, ...]) -> str:
    return f"{'is' if len(models) == 1 else 'are'} {', '.join(models)}"
