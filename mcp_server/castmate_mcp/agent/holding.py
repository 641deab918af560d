"""Lets a call wait a while for its job, which goes on when the caller leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult

from castmate.clients.base import Progress, ProgressCallback
from castmate.jobs.predictions import Prediction, State
from castmate.jobs.scenes import Storyboard
from castmate_mcp.agent.advice import explain
from castmate_mcp.agent.extensions.tasks import TaskSession
from castmate_mcp.agent.results import describe, to_content, waiting_for
from castmate_mcp.agent.saving import Target, save
from castmate_mcp.agent.series import describe_series
from castmate_mcp.agent.studio import DRAW_SCENES, GENERATE, Studio
from castmate_mcp.http.ids import job_id_of


async def hold(
    studio: Studio,
    ctx: Context[Any, Any],
    job: Prediction,
    wait_seconds: float | None,
    target: Target | None = None,
) -> CallToolResult:
    """Wait for a job and report its steps; running out of time is not an error.

    Args:
        studio: Has the job.
        ctx: The call that waits.
        job: The job as last read.
        wait_seconds: How long; None is CASTMATE_HOLD_S.
        target: Where to write its pictures as well; by default the place recorded with the job.

    Raises:
        ToolError: The job failed; says why, what it cost, and what to do next.
    """
    ledger = studio.castmate.ledger
    found, progress = await _wait(studio, ctx, job.id, ledger.wait, wait_seconds)
    if found.state is State.FAILED:
        raise failure(studio, found)
    if not found.state.final:
        studio.notices.watch(ctx, found.id, ledger.wait)
    out = describe(studio, found, ctx, progress)
    out.deduplicated = job.joined
    out.saved_to, unsaved = await save(studio, found, target)
    out.warnings += unsaved
    return await to_content(studio, out, [image.name for image in found.shown])


async def hold_series(
    studio: Studio, ctx: Context[Any, Any], series: Storyboard, wait_seconds: float | None
) -> CallToolResult:
    """The same for a series of pictures.

    Raises:
        ToolError: No scene could be drawn.
    """
    storyboards = studio.castmate.storyboards
    found, progress = await _wait(studio, ctx, series.id, storyboards.wait, wait_seconds)
    if found.state is State.FAILED:
        first = found.undrawn[0]
        raise failure(studio, first.prediction, found.id, f"Scene {first.number}: ", DRAW_SCENES)
    if not found.state.final:
        studio.notices.watch(ctx, found.id, storyboards.wait)
    sheet = await storyboards.sheet(found)
    out = describe_series(studio, found, sheet, ctx, progress)
    out.deduplicated = series.joined
    return await to_content(studio, out, [sheet.name] if sheet else [])


Found = TypeVar("Found")
_Waiting = Callable[[str, float | None, ProgressCallback], Coroutine[Any, Any, Found]]


async def _wait(
    studio: Studio,
    ctx: Context[Any, Any],
    name: str,
    wait: _Waiting[Found],
    wait_seconds: float | None,
) -> tuple[Found, str | None]:
    """Wait and report the steps; returns the final state and the last report."""
    wait_s: float | None = wait_seconds
    if isinstance(ctx.session, TaskSession):  # a task is done when its job is
        ctx.session.task.draws(name)
        wait_s = None
    elif wait_seconds is None:
        wait_s = studio.castmate.settings.hold_s
    steps: asyncio.Queue[Progress | None] = asyncio.Queue()
    waiting = asyncio.ensure_future(wait(name, wait_s, steps.put_nowait))
    waiting.add_done_callback(lambda _: steps.put_nowait(None))
    last, waits, progress = -1, 0, None
    began = time.monotonic()
    try:
        while (step := await steps.get()) is not None:
            if step.waits_for:
                # The protocol requires progress to grow, and no step is done.
                last, waits = max(last, 0), waits + 1
                await ctx.report_progress(
                    last + 1 - 1 / (1 + waits),
                    step.total or None,
                    waiting_for(studio, step.waits_for),
                )
            elif step.step > last:  # the protocol requires progress to grow
                last, progress = step.step, f"Step {step.step} of {step.total}"
                if last and (left_s := _left_s(step, time.monotonic() - began)) >= 1:
                    progress += f", about {left_s:.0f} s left"
                await ctx.report_progress(step.step, step.total, progress)
        return await waiting, progress
    finally:
        waiting.cancel()  # cancels only the wait


def failure(
    studio: Studio,
    job: Prediction,
    name: str | None = None,
    where: str = "",
    tool: str = GENERATE,
) -> ToolError:
    """Why a job failed, for the agent.

    Args:
        studio: Has the job.
        job: The prediction that failed.
        name: The job's id in the ledger, if that is not the prediction's.
        where: The part of the job that failed.
        tool: The tool that draws such jobs.
    """
    error = dict(job.error or {"code": "error", "message": "It failed.", "charged": None})
    error["message"] = studio.shown(str(error["message"]))
    return ToolError(f"Job {job_id_of(name or job.id)} failed. {where}{explain(error, tool)}")


def _left_s(step: Progress, spent_s: float) -> float:
    return spent_s / step.step * (step.total - step.step)
