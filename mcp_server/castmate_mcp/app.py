"""The one HTTP application: REST, files, health and, where it is given, MCP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from castmate.errors import CastmateError
from castmate_mcp import files, health
from castmate_mcp.gateway import Gateway
from castmate_mcp.keys import KeyRing
from castmate_mcp.metrics import Metrics
from castmate_mcp.request_log import RequestLog
from castmate_mcp.rest.envelope import on_bug, on_castmate_error, on_http_error
from castmate_mcp.service import Service


def build_app(service: Service, *, mcp: Starlette | None = None) -> Starlette:
    """The application; `app.state.gateway` is what its routes share.

    Args:
        service: The ledger and what draws; the caller opens and closes it.
        mcp: MCP's streamable HTTP application. Its own paths lead to it, with its middleware, and
            its lifespan is run.
    """
    database = service.jobs.ledger.database
    shared = Gateway(service, KeyRing(database), Metrics(database))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if mcp is not None:
                await stack.enter_async_context(mcp.router.lifespan_context(mcp))
            yield

    app = Starlette(
        routes=[*health.ROUTES, *files.ROUTES, *_mounted(mcp)],
        middleware=[Middleware(RequestLog, shared.metrics)],
        exception_handlers={
            CastmateError: on_castmate_error,
            HTTPException: on_http_error,
            Exception: on_bug,
        },
        lifespan=lifespan,
    )
    app.state.gateway = shared
    return app


def _mounted(mcp: Starlette | None) -> list[BaseRoute]:
    """Routes that lead to another application without changing the path that it sees."""
    routes = mcp.routes if mcp is not None else []
    return [Route(route.path, mcp) for route in routes if isinstance(route, Route) and mcp]
