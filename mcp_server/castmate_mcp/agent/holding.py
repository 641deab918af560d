"""A call that waits for its job for a while: the job does not notice when the caller leaves."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult

from castmate.clients.base import Progress
from castmate.jobs.predictions import Prediction, State
from castmate_mcp.agent.advice import explain
from castmate_mcp.agent.extensions.tasks import TaskSession
from castmate_mcp.agent.results import describe, to_content, waiting_for
from castmate_mcp.agent.studio import GENERATE, Studio
from castmate_mcp.http.ids import job_id_of


async def hold(
    studio: Studio, ctx: Context[Any, Any], job: Prediction, wait_seconds: float | None
) -> CallToolResult:
    """Wait for a job and report its steps; what it gives when the time is over is no error.

    Args:
        studio: Whose job it is.
        ctx: The call that waits.
        job: As it was found.
        wait_seconds: How long; None is CASTMATE_HOLD_S.

    Raises:
        ToolError: The job has failed: why, what it cost, and what to do next.
    """
    wait_s: float | None = wait_seconds
    if isinstance(ctx.session, TaskSession):  # asked for later: it is done when the job is
        ctx.session.task.job_id, wait_s = job.id, None
    elif wait_seconds is None:
        wait_s = studio.castmate.settings.hold_s
    steps: asyncio.Queue[Progress | None] = asyncio.Queue()
    ledger = studio.castmate.ledger
    waiting = asyncio.ensure_future(ledger.wait(job.id, wait_s, steps.put_nowait))
    waiting.add_done_callback(lambda _: steps.put_nowait(None))
    last, told, progress = -1, 0, None
    began = time.monotonic()
    try:
        while (step := await steps.get()) is not None:
            if step.waits_for:
                # The protocol wants it to grow, and no step is done.
                last, told = max(last, 0), told + 1
                await ctx.report_progress(
                    last + 1 - 1 / (1 + told),
                    step.total or None,
                    waiting_for(studio, step.waits_for),
                )
            elif step.step > last:  # the protocol wants it to grow
                last, progress = step.step, f"Step {step.step} of {step.total}"
                if last and (left_s := _left_s(step, time.monotonic() - began)) >= 1:
                    progress += f", about {left_s:.0f} s left"
                await ctx.report_progress(step.step, step.total, progress)
        found = await waiting
    finally:
        waiting.cancel()  # the wait alone
    if found.state is State.FAILED:
        raise failure(studio, found)
    studio.notices.watch(ctx, found)
    out = describe(studio, found, ctx, progress)
    out.deduplicated = job.joined
    return await to_content(studio, found, out)


def failure(studio: Studio, job: Prediction) -> ToolError:
    """Why a job failed, for the agent."""
    error = dict(job.error or {"code": "error", "message": "It failed.", "charged": None})
    error["message"] = studio.shown(str(error["message"]))
    return ToolError(f"Job {job_id_of(job.id)} failed. {explain(error, GENERATE)}")


def _left_s(step: Progress, spent_s: float) -> float:
    return spent_s / step.step * (step.total - step.step)
