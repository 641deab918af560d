"""The one form of every JSON answer: `{code, message, data}`, and errors in it.

An error has a real HTTP status, and its sentence in both `message` and `error`: there are clients
that read either. A success never has a top-level `error`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from castmate.errors import (
    CastmateError,
    IdempotencyConflict,
    InvalidRequest,
    Overloaded,
    PredictionNotFound,
    QuotaExceeded,
    Unavailable,
)

# WaveSpeed's business codes, by ours.
_CODES: Final[Mapping[str, int]] = {
    "invalid_request": 1401,
    "image_rejected": 1402,
    "unavailable": 5003,
    "overloaded": 5003,
    "deadline_exceeded": 5003,
    "budget_exceeded": 5003,
    "cancelled": 1403,
    "maybe_charged": 1403,
    "interrupted": 1403,
}
_OTHER_CODE: Final = 5000
_AWAY_RETRY_S: Final = 2  # where the database or the storage is away


def business_code(code: str) -> int:
    """WaveSpeed's code for one of ours."""
    return _CODES.get(code, _OTHER_CODE)


# A path that leads through a folder, on either system; what follows a word or a slash is a URL's.
_PATH: Final = re.compile(
    r"(?<![\w/:.}])(?:/(?!api/|docs\b|files/)|[A-Za-z]:[\\/])[^\s'\",;:()]*[\\/]([^\s'\",;:()/\\]+)"
)


def without_paths(text: str) -> str:
    """An error without the folders of this machine: callers elsewhere need not know them."""
    return _PATH.sub(r"\1", text)


class Refusal(CastmateError):
    """A request that is answered with an HTTP status of our choice."""

    code = "refused"

    def __init__(
        self, status: int, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Say why.

        Args:
            status: HTTP's.
            message: What is wrong and what to do next.
            headers: Of the answer.
        """
        self.status, self.headers = status, dict(headers or {})
        super().__init__(message)


def success(data: BaseModel | Sequence[BaseModel]) -> JSONResponse:
    """HTTP 200 with `data`; what is optional and missing is left out, never null."""
    values = (
        data.model_dump(mode="json", exclude_none=True)
        if isinstance(data, BaseModel)
        else [one.model_dump(mode="json", exclude_none=True) for one in data]
    )
    return JSONResponse({"code": 200, "message": "success", "data": values})


def refusal(
    status: int,
    message: str,
    headers: Mapping[str, str] | None = None,
    **details: Any,
) -> JSONResponse:
    """An HTTP error with its sentence."""
    body = {"code": status, "message": message, "error": message} | details
    return JSONResponse(body, status, headers)


def as_response(error: CastmateError) -> JSONResponse:
    """One of our errors, with the status that says what the caller can do."""
    headers: dict[str, str] = {}
    details = error.as_dict()
    del details["message"]
    details["reason"] = details.pop("code")
    match error:
        case Refusal():
            return refusal(error.status, str(error), error.headers)
        case InvalidRequest():
            status = 422
            details["error_code"] = business_code(error.code)
        case PredictionNotFound():
            status = 404
        case IdempotencyConflict():
            status = 409
        case QuotaExceeded():
            status = 413
        case Overloaded():
            status = 429
            headers["retry-after"] = str(math.ceil(error.retry_after_s))
        case Unavailable():
            status = 503
            headers["retry-after"] = str(_AWAY_RETRY_S)
        case _:
            status = 500
    return refusal(status, without_paths(str(error)), headers, **details)


async def on_castmate_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for our errors."""
    assert isinstance(error, CastmateError)
    return as_response(error)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for its own: no such route, no such method."""
    assert isinstance(error, HTTPException)
    message = {
        404: f"There is no {request.method} {request.url.path}. /docs lists what there is.",
        405: f"{request.url.path} cannot be asked with {request.method}.",
    }.get(error.status_code, error.detail)
    return refusal(error.status_code, message, error.headers)
