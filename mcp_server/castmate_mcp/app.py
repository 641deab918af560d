"""The one HTTP application: REST, files, health and, where it is given, MCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import httpcore2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from castmate.errors import CastmateError
from castmate.service import Castmate
from castmate_mcp.http import files, health, uploads
from castmate_mcp.http.envelope import on_castmate_error, on_http_error
from castmate_mcp.http.gateway import SYNC_CAP_S, Gateway
from castmate_mcp.http.request_log import RequestLog
from castmate_mcp.rest import openapi
from castmate_mcp.rest.operations import OPERATIONS
from castmate_mcp.rest.webhooks import BACKOFF_S, Courier
from castmate_mcp.settings import ServerSettings
from castmate_mcp.studio import routes as studio


def build_app(
    castmate: Castmate[ServerSettings],
    *,
    mcp: Starlette | None = None,
    sync_cap_s: float = SYNC_CAP_S,
    webhook_backoff_s: Sequence[float] = BACKOFF_S,
    webhook_backend: httpcore2.AsyncNetworkBackend | None = None,
) -> Starlette:
    """The application; `app.state.gateway` is what its routes share.

    Args:
        castmate: Opened; the caller closes it.
        mcp: MCP's streamable HTTP application. Its own paths lead to it, with its middleware, and
            its lifespan is run.
        sync_cap_s: How long a submission in sync mode is held open.
        webhook_backoff_s: How long to wait after each failed delivery of a webhook.
        webhook_backend: What opens connections to their receivers; only tests replace it.
    """
    shared = Gateway(castmate, sync_cap_s)
    courier = Courier(shared, backoff_s=webhook_backoff_s, backend=webhook_backend)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if mcp is not None:
                await stack.enter_async_context(mcp.router.lifespan_context(mcp))
            sharing = shared.rate.share_always(castmate.keys.count)
            tasks = [asyncio.create_task(work) for work in (courier.run(), sharing)]
            yield
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    app = Starlette(
        routes=[
            *health.ROUTES,
            *files.ROUTES,
            *openapi.ROUTES,
            *studio.ROUTES,
            *uploads.ROUTES,
            *(operation.route() for operation in OPERATIONS),
            *_mounted(mcp),
        ],
        middleware=[Middleware(RequestLog, shared.metrics), Middleware(OneSlash)],
        exception_handlers={
            CastmateError: on_castmate_error,
            HTTPException: on_http_error,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a submit that is sent elsewhere confuses clients
    app.state.gateway = shared
    if mcp is not None:
        mcp.state.gateway = shared
    return app


class OneSlash:
    """A base URL may end with a slash: `//api/v3/...` is `/api/v3/...`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and scope["path"].startswith("//"):
            scope["path"] = f"/{scope['path'].lstrip('/')}"
        await self._app(scope, receive, send)


def _mounted(mcp: Starlette | None) -> list[BaseRoute]:
    """Routes that lead to another application without changing the path that it sees."""
    routes = mcp.routes if mcp is not None else []
    return [Route(route.path, mcp) for route in routes if isinstance(route, Route) and mcp]
