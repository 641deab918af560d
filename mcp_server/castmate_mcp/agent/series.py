"""Results of series for agents: a job with a picture for each scene, and the sheet."""

from __future__ import annotations

import time
from typing import Any, Final

from mcp.server.mcpserver import Context

from castmate.captions import unreadable
from castmate.jobs.predictions import State, StoredImage
from castmate.jobs.scenes import Scene, Storyboard
from castmate.shorten import shorten
from castmate.times import iso8601
from castmate_mcp.agent.results import (
    STATUS,
    JobOut,
    UndrawnOut,
    image_out,
    waiting_for,
    where,
)
from castmate_mcp.agent.studio import DRAW_SCENES, Studio
from castmate_mcp.http.ids import ImageName, job_id_of

_CAPTION: Final = 100  # characters of a caption that are repeated


def describe_series(
    studio: Studio,
    series: Storyboard,
    sheet: StoredImage | None,
    ctx: Context[Any, Any],
    progress: str | None = None,
) -> JobOut:
    """A series that has not failed as a whole, in the words of the tools.

    Args:
        studio: Has the series.
        series: The series as last read.
        sheet: Its contact sheet, if it has one.
        ctx: The call.
        progress: The last step that was reported.
    """
    job_id = job_id_of(series.id)
    ended = [one.prediction.finished for one in series.scenes if one.prediction.finished]
    expires = [one.prediction.expires for one in series.scenes if one.prediction.expires]
    until = max(ended) if series.state.final and ended else time.time()
    out = JobOut(
        status=STATUS[series.state],
        job_id=job_id,
        images=[
            image_out(studio, ImageName(scene.prediction.id, 0), scene.image, ctx).model_copy(
                update={"scene": scene.number, "caption": shorten(scene.text, _CAPTION)}
            )
            for scene in series.scenes
            if scene.image
        ],
        failed=[_undrawn(studio, scene) for scene in series.undrawn],
        elapsed_s=round(until - series.created, 2),
        expires_at=iso8601(min(expires)) if expires and series.state.final else None,
        cost_usd=series.cost_usd,
        warnings=_warnings(series),
        next_step="",
    )
    if sheet is not None:
        out.sheet = image_out(studio, ImageName(series.id, 0), sheet, ctx)
    if not series.state.final:
        out.progress = _progress(studio, series, progress)
        out.next_step = (
            f"Not finished, not lost: call get_job with job_id {job_id} to wait for the pictures. "
            "Do not draw them again."
        )
    elif out.sheet is None:
        out.next_step = f"The same {DRAW_SCENES} call again draws what was cancelled."
    else:
        out.next_step = (
            f"Show the user the {where(out.sheet)} of the sheet. If you cannot see it, call "
            "view_image with its image_id, or with that of a picture."
        )
        if out.failed:
            numbers = ", ".join(str(one.scene) for one in out.failed)
            out.next_step += (
                f" Not drawn: scene {numbers}; the same {DRAW_SCENES} call again draws only these."
            )
    return out


def _progress(studio: Studio, series: Storyboard, step: str | None) -> str:
    drawn = sum(scene.image is not None for scene in series.scenes)
    words = [f"{drawn} of {len(series.scenes)} scenes drawn"]
    waits = [one.prediction.waits_for for one in series.scenes if one.prediction.waits_for]
    if step is not None:
        words.append(step)
    elif waits:
        words.append(waiting_for(studio, str(waits[0]["message"])))
    return ". ".join(words)


def _undrawn(studio: Studio, scene: Scene) -> UndrawnOut:
    error = scene.prediction.error or {}
    why = str(error.get("message") or "It failed.")
    return UndrawnOut(
        scene=scene.number, caption=shorten(scene.text, _CAPTION), why=studio.shown(why)
    )


def _warnings(series: Storyboard) -> list[str]:
    """The warnings about the pictures, each once, and about the sheet."""
    warnings = dict.fromkeys(
        warning
        for scene in series.scenes
        if scene.prediction.result
        for warning in scene.prediction.result.warnings
    )
    boxes = [str(scene.number) for scene in series.scenes if unreadable(scene.text)]
    if boxes and series.state is State.COMPLETED:
        warnings[
            f"No font on this machine has every letter of caption {', '.join(boxes)}: the sheet "
            "shows them without accents, or ? for what is missing; `caption` has the text."
        ] = None
    return [*warnings]
