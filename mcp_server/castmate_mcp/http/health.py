"""`/healthz`, `/readyz` and `/metrics`: for whoever keeps the server running."""

from __future__ import annotations

from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from castmate import __version__
from castmate.errors import Unavailable
from castmate.jobs.keys import Scope
from castmate_mcp.http.auth import caller
from castmate_mcp.http.envelope import without_paths
from castmate_mcp.http.gateway import gateway


async def healthz(request: Request) -> Response:
    """The process answers; it says nothing about anything else."""
    return JSONResponse({"status": "ok", "version": __version__})


async def readyz(request: Request) -> Response:
    """Whether requests should be sent here: 503 while it drains, or can write nothing down.

    A model that still loads, or a GPU that is down, is no reason: what is submitted waits.
    """
    here = gateway(request)
    ledger = here.castmate.ledger
    for name, check in (("ledger", ledger.check), ("storage", ledger.storage.check)):
        try:
            await check()
        except Unavailable as error:
            reason = without_paths(str(error))
            return JSONResponse({"status": f"no {name}", "reason": reason}, 503)
    if here.draining.is_set():
        return JSONResponse({"status": "draining"}, 503)
    return JSONResponse({"status": "ready"})


async def metrics(request: Request) -> Response:
    """Prometheus' text format; needs the scope `metrics` where there are keys."""
    await caller(request, Scope.METRICS)
    return Response(
        await gateway(request).metrics.exposition(), headers={"content-type": CONTENT_TYPE_LATEST}
    )


ROUTES: Final = (Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics))
