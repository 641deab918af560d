"""get_job and cancel_job: the outcome of a dropped call, even after a restart."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import BaseModel, Field

from castmate.jobs.predictions import Prediction, State
from castmate.jobs.scenes import Storyboard
from castmate_mcp.agent.extensions import viewer
from castmate_mcp.agent.holding import hold, hold_series
from castmate_mcp.agent.results import MONEY, STATUS, JobOut, tool_result
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import DRAW_SCENES, GENERATE, Studio
from castmate_mcp.agent.tools import READS
from castmate_mcp.agent.tools.generate import WaitSeconds
from castmate_mcp.http.ids import job_id_of

_STOP_S: Final = 10.0  # a denoise step is over by then

JobId = Annotated[
    str,
    Field(min_length=1, description="Such as job_4f9a..."),
]


class CancelOut(BaseModel):
    """What became of a job."""

    status: Literal["running", "completed", "cancelled", "failed"]
    job_id: str
    charged: bool | None = None
    next_step: str


def add(server: StrictServer, studio: Studio) -> None:
    """Add both tools.

    Args:
        server: To which one.
        studio: What they work with.
    """

    @server.tool(
        title="Wait for a job, or look it up",
        meta=viewer.SHOWN,
        annotations=READS,
    )
    async def get_job(
        ctx: Context[Any, Any], job_id: JobId, wait_seconds: WaitSeconds = None
    ) -> Annotated[CallToolResult, JobOut]:
        """Wait for the pictures of a job; wait_seconds 0 only looks.

        Use it when a call returned status running, or was cut off: jobs survive that, and
        restarts. Not for drawing again. It is free. Returns what that call would have.
        """
        found = await studio.job(job_id)
        if isinstance(found, Storyboard):
            return await hold_series(studio, ctx, found, wait_seconds)
        return await hold(studio, ctx, found, wait_seconds)

    @server.tool(
        title="Cancel a job",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def cancel_job(job_id: JobId) -> Annotated[CallToolResult, CancelOut]:
        """Stop a job that is waiting or running.

        Use it when the user no longer wants it. Not for deleting: what is finished stays.
        It is free. Returns its status and whether it was charged.
        """
        found = await studio.job(job_id)
        castmate = studio.castmate
        await studio.cancel(found.id)
        if isinstance(found, Storyboard):
            return tool_result(_describe_series(await castmate.storyboards.wait(found.id, _STOP_S)))
        return tool_result(_describe(await castmate.ledger.wait(found.id, _STOP_S)))


def _describe(job: Prediction) -> CancelOut:
    if job.result is not None:
        charged: bool | None = job.result.cost_usd > 0
    else:
        charged = job.error["charged"] if job.error else None
    return _cancelled(job.id, job.state, charged, GENERATE)


def _describe_series(series: Storyboard) -> CancelOut:
    each = [_describe(scene.prediction).charged for scene in series.scenes]
    charged = None if None in each else True in each
    out = _cancelled(series.id, series.state, charged, DRAW_SCENES)
    if series.undrawn and series.state is State.COMPLETED:
        drawn = len(series.scenes) - len(series.undrawn)
        out.next_step = (
            f"{MONEY[charged]} {drawn} scenes were drawn before: get_job gives their pictures."
        )
    return out


def _cancelled(name: str, state: State, charged: bool | None, tool: str) -> CancelOut:
    step = {
        State.CANCELLED: f"{tool} draws it after all.",
        State.COMPLETED: "It was finished before: get_job gives its pictures.",
        State.FAILED: "It had failed before: get_job says why.",
    }.get(state, "It ends before its next step: get_job says when.")
    return CancelOut(
        status=STATUS[state],
        job_id=job_id_of(name),
        charged=charged,
        next_step=f"{MONEY[charged]} {step}",
    )
