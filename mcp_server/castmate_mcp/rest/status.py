"""How the server does: clients, queue, memory, spending and step times, for its operators."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Any, Final

from starlette.responses import Response

from castmate import __version__
from castmate.clients.base import Servers
from castmate.doctor import memory_plans
from castmate.engines.memory_table import as_values
from castmate.jobs.keys import Key
from castmate.jobs.step_times import StepTimes
from castmate.route import ClientStatus
from castmate.times import day_of, rfc3339
from castmate_mcp.http.envelope import success, without_paths
from castmate_mcp.rest.operation import Call
from castmate_mcp.rest.status_models import (
    BucketOut,
    ClientOut,
    KeyOut,
    QueueOut,
    ServersOut,
    ServerStatusOut,
    SpendOut,
    StepTimesOut,
)

_DAYS: Final = 30


async def status(call: Call) -> Response:
    """`GET /api/v3/status`: as it is now, of every key."""
    castmate = call.gateway.castmate
    router, ledger = castmate.router, castmate.ledger
    backlog = await ledger.backlog()
    spent = await castmate.budget.sums(day_of(time.time(), _DAYS - 1))
    return success(
        ServerStatusOut(
            version=__version__,
            clients=[_client(one, router.servers.get(one.name)) for one in router.status()],
            queue=QueueOut(
                waiting=backlog.waiting,
                running=backlog.running,
                oldest_wait_s=round(backlog.oldest_wait_s, 3),
                work_s=round(backlog.work_s, 3),
            ),
            memory=await _memory(call),
            spend=[SpendOut(day=one.day, key=one.key_name, usd=one.usd) for one in spent],
            step_times=[_step_times(one) for one in await ledger.step_times()],
            keys=[_key(one) for one in await castmate.keys.list()],
        )
    )


def _client(found: ClientStatus, servers: Servers | None) -> ClientOut:
    return ClientOut(
        name=found.name,
        up=found.up,
        opening=found.opening,
        breaker=found.breaker,
        reason=without_paths(found.last_error),
        servers=ServersOut(**asdict(servers)) if servers else None,
    )


async def _memory(call: Call) -> list[dict[str, Any]]:
    """The plan by which the model was loaded; where none is loaded, what would be."""
    castmate = call.gateway.castmate
    if (loaded := castmate.router.residency) is not None:
        return [{"title": f"{castmate.settings.bundle}, as it is loaded", **as_values(loaded)}]
    plans = await asyncio.to_thread(memory_plans, castmate.settings)
    return [{"title": without_paths(title), **as_values(plan)} for title, plan in plans]


def _step_times(found: StepTimes) -> StepTimesOut:
    histogram = [BucketOut(up_to_ms=edge, count=count) for edge, count in found.histogram.items()]
    return StepTimesOut(
        client=found.client,
        count=found.count,
        median_ms=found.median_ms,
        p95_ms=found.p95_ms,
        histogram=histogram,
    )


def _key(found: Key) -> KeyOut:
    return KeyOut(
        name=found.name,
        scopes=sorted(found.scopes),
        created_at=rfc3339(found.created),
        revoked_at=None if found.revoked is None else rfc3339(found.revoked),
    )
