"""Around every request: an id, one line in the log, one count, never what is in it."""

from __future__ import annotations

import re
import time
from contextlib import nullcontext
from typing import Final
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from castmate import tracing
from castmate_mcp.http.envelope import refusal
from castmate_mcp.http.metrics import Metrics

_log = structlog.stdlib.get_logger("castmate.http")
_ID: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})


class RequestLog:
    """The outermost layer; a caller's X-Request-Id is kept, where it is one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid4().hex
        clear_contextvars()
        bind_contextvars(request_id=request_id)
        status, begin = 0, time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        method = scope["method"] if scope["method"] in _METHODS else "(other)"
        quiet = scope["path"] in _QUIET
        tracked = tracing.span(method, Headers(scope=scope).get("traceparent"))
        try:
            with nullcontext(tracing.UNTRACED) if quiet else tracked as span:
                await self._app(scope, receive, send_with_id)
                span.update_name(f"{method} {_route(scope)}")
                span.set_attribute("http.response.status_code", status)
        except Exception as error:
            _log.exception("a bug")
            if status:
                raise  # the answer has begun: only the missing rest shows it
            apology = f"A bug in Castmate: {type(error).__name__}. The log has more, at this id."
            await refusal(500, apology)(scope, receive, send_with_id)
        finally:
            seconds, route = time.perf_counter() - begin, _route(scope)
            self._metrics.answered(method, route, status, seconds)
            log = _log.debug if route in _QUIET else _log.info
            log(
                "request",
                method=method,
                route=route,
                status=status,
                ms=round(seconds * 1000, 1),
            )


def _route(scope: Scope) -> str:
    """The path as it was declared: ids and signatures are the caller's business."""
    return getattr(scope.get("route"), "path", "(none)")
