"""Every operation of the API, in the order in which routes are tried: the catch-all is last."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from castmate.jobs.keys import Scope
from castmate.storyboard import StoryboardRequest
from castmate_mcp.http.body import MAX_FORM_BYTES
from castmate_mcp.rest import account, events, media, predictions, status, storyboards
from castmate_mcp.rest.models import (
    Balance,
    Deleted,
    DeletedCount,
    Ids,
    ListQuery,
    ModelOut,
    PredictionList,
    PredictionOut,
    Price,
    PriceQuery,
    Submission,
    UnitPrice,
    Uploaded,
    UploadForm,
    UploadTicket,
    UploadTicketQuery,
    WebhookSecret,
)
from castmate_mcp.rest.operation import Operation
from castmate_mcp.rest.saved_operations import SAVED
from castmate_mcp.rest.status_models import ServerStatusOut
from castmate_mcp.rest.storyboard_models import StoryboardOut
from castmate_mcp.rest.submit import submit
from castmate_mcp.rest.webhooks import webhook_secret

_RESULT: Final = Operation(
    "GET",
    "/api/v3/predictions/{id}/result",
    predictions.result,
    Scope.READ,
    "Look at a prediction",
    PredictionOut,
    limited=False,  # once a second for each is what clients do
    statuses=(404,),
)
_BINARY: Final = Operation(
    "POST",
    "/api/v3/media/upload/binary",
    media.upload_form,
    Scope.GENERATE,
    "Upload a picture as a form",
    Uploaded,
    UploadForm,
    media="multipart/form-data",
    max_body_bytes=MAX_FORM_BYTES,
)
_SUBMIT: Final = Operation(
    "POST",
    "/api/v3/{owner}/{model:path}",
    submit,
    Scope.GENERATE,
    "Submit a generation",
    PredictionOut,
    Submission,
    query={"webhook": "A public https URL that is called when the prediction ends."},
    statuses=(404, 409),
)
_PRICE: Final = Operation(
    "POST",
    "/api/v3/model/price",
    account.price,
    Scope.READ,
    "Ask what a generation costs",
    Price,
    PriceQuery,
    statuses=(404,),
)


def _also_at(operation: Operation, path: str) -> Operation:
    return replace(operation, path=path, alias_of=operation.path)


OPERATIONS: Final = (
    _RESULT,
    _also_at(_RESULT, "/api/v3/predictions/{id}"),
    Operation(
        "GET",
        "/api/v3/predictions/{id}/events",
        events.events,
        Scope.READ,
        "Follow a prediction",
        PredictionOut,
        limited=False,  # as looking is; the streams of a key are bounded
        statuses=(404, 429),
        events=events.EVENTS,
    ),
    Operation(
        "DELETE",
        "/api/v3/predictions/{id}",
        predictions.delete_prediction,
        Scope.GENERATE,
        "Remove a finished prediction",
        Deleted,
        statuses=(404, 409),
    ),
    Operation(
        "POST",
        "/api/v3/predictions/{id}/cancel",
        predictions.cancel,
        Scope.GENERATE,
        "Stop a prediction",
        PredictionOut,
        statuses=(404,),
    ),
    Operation(
        "POST",
        "/api/v3/predictions/delete",
        predictions.delete_predictions,
        Scope.GENERATE,
        "Remove finished predictions",
        DeletedCount,
        Ids,
    ),
    Operation(
        "POST",
        "/api/v3/predictions",
        predictions.list_predictions,
        Scope.READ,
        "List one's predictions",
        PredictionList,
        ListQuery,
    ),
    Operation(
        "POST",
        "/api/v3/storyboards",
        storyboards.submit,
        Scope.GENERATE,
        "Submit a series of pictures",
        StoryboardOut,
        StoryboardRequest,
        query={"webhook": "A public https URL that is called for each scene when it ends."},
        statuses=(409,),
    ),
    Operation(
        "GET",
        "/api/v3/storyboards",
        storyboards.list_storyboards,
        Scope.READ,
        "List one's series",
        list[StoryboardOut],
        query={"before": "The last id of the page before."},
    ),
    Operation(
        "GET",
        "/api/v3/storyboards/{id}",
        storyboards.result,
        Scope.READ,
        "Look at a series",
        StoryboardOut,
        limited=False,  # as looking at a prediction is
        statuses=(404,),
    ),
    Operation(
        "GET",
        "/api/v3/storyboards/{id}/events",
        storyboards.events,
        Scope.READ,
        "Follow a series",
        StoryboardOut,
        limited=False,
        statuses=(404, 429),
        events=storyboards.EVENTS,
    ),
    Operation(
        "POST",
        "/api/v3/storyboards/{id}/cancel",
        storyboards.cancel,
        Scope.GENERATE,
        "Stop a series",
        StoryboardOut,
        statuses=(404,),
    ),
    Operation(
        "DELETE",
        "/api/v3/storyboards/{id}",
        storyboards.delete,
        Scope.GENERATE,
        "Remove a finished series",
        Deleted,
        statuses=(404, 409),
    ),
    *SAVED,
    Operation(
        "POST",
        "/api/v3/media/uploads",
        media.ticket,
        Scope.GENERATE,
        "Ask where to upload a picture",
        UploadTicket,
        UploadTicketQuery,
    ),
    _BINARY,
    Operation(
        "GET",
        "/api/v3/balance",
        account.balance,
        Scope.READ,
        "Ask what may still be spent",
        Balance,
    ),
    Operation(
        "GET",
        "/api/v3/models",
        account.models,
        Scope.READ,
        "List the models",
        list[ModelOut],
    ),
    _PRICE,
    Operation(
        "POST",
        "/api/v3/model/pricing",
        account.pricing,
        Scope.READ,
        "Ask what a generation costs, in the older form",
        UnitPrice,
        PriceQuery,
        statuses=(404,),
    ),
    Operation(
        "GET",
        "/api/v3/status",
        status.status,
        Scope.ADMIN,
        "Look at how the server does",
        ServerStatusOut,
    ),
    Operation(
        "GET",
        "/api/v3/webhook/secret",
        webhook_secret,
        Scope.GENERATE,
        "Get what signs webhooks",
        WebhookSecret,
    ),
    _also_at(_RESULT, "/api/v2/predictions/{id}/result"),
    _also_at(_BINARY, "/api/v2/media/upload/binary"),
    _SUBMIT,
    _also_at(_SUBMIT, "/api/v2/{owner}/{model:path}"),
)
