"""Residency plans for people: what stays, what leaves, what each stage takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from castmate.engines.footprint import Counted
from castmate.engines.residency import Residency, Runs, gigabytes
from castmate.errors import BundleMismatch

_RUNS = {
    Runs.STEP: "every step",
    Runs.PICTURE: "every picture",
    Runs.PROMPT: "every new prompt",
    Runs.REFERENCE: "every new character",
}
_HEAD = ("stage", "runs", "peak", "activations", "weights")


def memory_table(plan: Residency) -> list[str]:
    """The lines of a table, one for each stage, and its consequences."""
    rows = [
        (
            stage.name,
            _RUNS[stage.runs],
            gigabytes(plan.peak(stage)),
            gigabytes(plan.workspace(stage.graphs[0])),
            ", ".join(_graph(plan, name) for name in stage.graphs),
        )
        for stage in plan.stages
    ]
    return [*_aligned([_HEAD, *rows]), "", *_summary(plan)]


def as_text(plans: Iterable[tuple[str, Residency | str]]) -> str:
    """Every plan below its title; a text in place of a plan is the reason why there is none."""
    lines = []
    for title, plan in plans:
        table = [plan] if isinstance(plan, str) else memory_table(plan)
        lines += ["", f"GPU memory: {title}", *(f"  {line}".rstrip() for line in table)]
    return "\n".join(lines)


def overview(models: Iterable[Counted], cards: Iterable[int], caches: int) -> list[str]:
    """A Markdown table of models on cards of various sizes.

    Args:
        models: In the order of their rows.
        cards: Bytes that may be taken.
        caches: Bytes of these for encoded prompts and references.
    """
    lines = [
        "| may take | to | resident | parked | peak | a new prompt loads | a new character loads |",
        "|---|---|---|---|---|---|---|",
    ]
    for memory, model in ((memory, model) for memory in cards for model in models):
        try:
            plan = model.plan(memory, caches)
        except BundleMismatch:
            cells = ["does not fit", "", "", "", ""]
        else:
            resident, parked = (_names(model, names) for names in (plan.resident, plan.parked))
            peak = gigabytes(max(map(plan.peak, plan.stages)))
            loads = [plan.loads(runs) for runs in (Runs.PROMPT, Runs.REFERENCE)]
            cells = [resident, parked, peak, *(gigabytes(size) if size else "0" for size in loads)]
        lines.append(f"| {gigabytes(memory)} | {model.side} px | {' | '.join(cells)} |")
    return lines


def by_scheme(models: Iterable[Counted], cards: Iterable[int], caches: int) -> list[str]:
    """A Markdown table of how much of a model small cards hold, by how its weights are stored.

    Weights that do not fit are streamed from the host (`export.build --weight-streaming`).

    Args:
        models: For pictures of one size.
        cards: Bytes that may be taken.
        caches: Bytes of these for encoded prompts and references.
    """
    lines = [
        "| may take | weights | GPUs that gain | of a step's weights stay | are streamed | peak | "
        "a new prompt loads |",
        "|---|---|---|---|---|---|---|",
    ]
    for memory, model in ((memory, model) for memory in cards for model in models):
        cells = _cells(model, memory, caches)
        gains = ", ".join(model.gains)
        lines.append(f"| {gigabytes(memory)} | {model.precision} | {gains} | {cells} |")
    return lines


def _cells(model: Counted, memory: int, caches: int) -> str:
    try:
        plan = model.plan(memory, caches)
    except BundleMismatch:
        try:
            plan = model.plan(memory, caches, streams=True)
        except BundleMismatch:
            return "does not fit | | |"
    (graphs,) = [stage.graphs for stage in plan.stages if stage.runs is Runs.STEP]
    whole = sum(plan.footprints[name].weights for name in graphs)
    stays = sum(plan.weights[name] for name in graphs)
    peak = gigabytes(max(map(plan.peak, plan.stages)))
    streamed = gigabytes(whole - stays) if whole > stays else "nothing"
    return f"{gigabytes(stays)} | {streamed} | {peak} | {gigabytes(plan.loads(Runs.PROMPT))}"


def _names(model: Counted, names: Sequence[str]) -> str:
    if len(names) == len(model.footprints):
        return "all"
    return ", ".join(names) or "none"


def as_values(plan: Residency | str) -> dict[str, Any]:
    """A plan for programs; a text in place of a plan is the reason why there is none."""
    if isinstance(plan, str):
        return {"fits": False, "reason": plan}
    return {
        "fits": True,
        "room_bytes": plan.room,
        "cache_bytes": plan.caches,
        "resident": list(plan.resident),
        "parked": list(plan.parked),
        "streamed": list(plan.streamed),
        "weight_bytes": dict(plan.weights),
        "peak_bytes": {stage.name: plan.peak(stage) for stage in plan.stages},
        "activation_bytes": {stage.name: plan.workspace(stage.graphs[0]) for stage in plan.stages},
        "loaded_bytes": {runs.name.lower(): plan.loads(runs) for runs in Runs},
    }


def _graph(plan: Residency, name: str) -> str:
    size = gigabytes(plan.footprints[name].weights)
    if name in plan.streamed:
        return f"{name} {size} ({gigabytes(plan.weights[name])} stay, the rest is streamed)"
    return f"{name} {size}" + ("" if name in plan.resident else " (parked)")


def _summary(plan: Residency) -> list[str]:
    peak = max(map(plan.peak, plan.stages))
    lines = [
        f"{gigabytes(peak)} of {gigabytes(plan.room)} at the peak, {gigabytes(plan.caches)} of "
        f"them for caches; {gigabytes(plan.room - peak)} spare."
    ]
    for what, runs in (
        ("A picture of a known prompt and character", Runs.PICTURE),
        ("A new prompt", Runs.PROMPT),
        ("A new character", Runs.REFERENCE),
    ):
        size = plan.loads(runs)
        lines.append(f"{what} loads {gigabytes(size) if size else 'nothing'}.")
    return lines


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
