"""The report's plots as SVG, in colours and markers that colour-blind readers can tell apart."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73"),
    *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
CLASSES = {
    "exact": (BLUE, "o"),
    "near-lossless": (GREEN, "s"),
    "cached": (ORANGE, "^"),
    "few steps": (SKY, "v"),
    "style": (BLACK, "P"),
    "hosted": (PINK, "D"),
}
STAGES = {
    "queue": BLACK,
    "text": SKY,
    "subject": PINK,
    "denoise": BLUE,
    "decode": ORANGE,
    "safety": GREEN,
    "encode": RED,
}
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "svg.hashsalt": "castmate",
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
}
Rows = Mapping[str, Mapping[str, Any]]


def svg(figure: Figure) -> str:
    """A figure as an `<svg>` element; the same figure gives the same text."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = stream.getvalue()
    return text[text.index("<svg") :]


def percentile_bars(contenders: Rows) -> Figure:
    """p50 to p99 of every contender that ran, fastest on top."""
    rows = sorted(_ran(contenders).items(), key=lambda item: -item[1]["p50_ms"])
    figure, axes = _figure(9, 1 + 0.38 * len(rows))
    for place, (_, row) in enumerate(rows):
        colour, marker = CLASSES[row["class"]]
        axes.plot([row["p50_ms"], row["p99_ms"]], [place, place], color=colour, linewidth=3)
        axes.plot(row["p50_ms"], place, marker=marker, color=colour, markersize=8)
        for key in ("p90_ms", "p95_ms", "p99_ms"):
            axes.plot(row[key], place, marker="|", color=colour, markersize=10)
        axes.annotate(
            f"{row['p50_ms']:.0f}",
            (row["p50_ms"], place),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(-0.6, len(rows) - 0.2)
    axes.set_xlabel("milliseconds a picture; marker p50, ticks p90, p95, p99")
    axes.set_xlim(left=0)
    _class_legend(axes, {row["class"] for _, row in rows})
    return figure


def stage_bars(contenders: Rows) -> Figure:
    """Where the time goes, for contenders that report their stages."""
    rows = {
        name: row["stages_p50_ms"]
        for name, row in _ran(contenders).items()
        if len(row["stages_p50_ms"]) > 1
    }
    figure, axes = _figure(9, 1.4 + 0.42 * len(rows))
    left = [0.0] * len(rows)
    for stage, colour in STAGES.items():
        widths = [row.get(stage, 0.0) for row in rows.values()]
        if any(widths):
            axes.barh(list(rows), widths, left=left, color=colour, label=stage, edgecolor="white")
            left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds, median of each stage")
    axes.legend(ncols=len(STAGES), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return figure


def pareto(rows: Rows) -> Figure:
    """Speed against loss of identity: step caching at every threshold, few steps, styles."""
    known = "judge_look_change" if "judge_look_change" in _any(rows) else "dino_change"
    timed = {name: row for name, row in rows.items() if row["speedup"] and not row["control"]}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    curve = sorted(timed.items(), key=lambda item: item[1]["threshold"])
    for axes, key, label in (
        (left, known, "change of the judged look, against exact" if "judge" in known else known),
        (right, "ssim", "SSIM to the exact picture"),
    ):
        caching = [row for _, row in curve if row["class"] in ("exact", "cached")]
        points = [(row["speedup"]["value"], row[key]["value"]) for row in caching]
        axes.plot(*zip(*points, strict=True), color="#999999", linewidth=1, zorder=1)
        for name, row in curve:
            colour, marker = CLASSES[row["class"]]
            value, x = row[key], row["speedup"]["value"]
            error = [[value["value"] - value["low"]], [value["high"] - value["value"]]]
            named = not (name.startswith("threshold") or "subject_scale" in row)
            axes.errorbar(
                x,
                value["value"],
                yerr=error,
                marker=marker,
                color=colour,
                markersize=9 if named else 5,
                capsize=2,
                elinewidth=0.8,
                zorder=3 if named else 2,
            )
            if named:
                offset = (0, 9) if row["class"] == "exact" else (0, -16)
                axes.annotate(
                    name,
                    (x, value["value"]),
                    xytext=offset,
                    textcoords="offset points",
                    ha="center",
                )
        axes.set_xlabel("times faster than every step computed, whole picture")
        axes.set_ylabel(label)
        axes.margins(x=0.1, y=0.18)
    control = next((row for name, row in rows.items() if name.startswith("other kernels")), None)
    if control is not None:
        right.axhline(control["ssim"]["value"], color=BLACK, linestyle=":", linewidth=1)
        right.annotate(
            "dotted: the control, other kernels",
            (0.98, 0.96),
            xycoords="axes fraction",
            ha="right",
            fontsize=8,
        )
    left.axhline(0, color=BLACK, linestyle=":", linewidth=1)
    return figure


def load_curves(doors: Rows) -> Figure | None:
    """p50, p95 and p99 by offered load, a line for each door; None if no door could start."""
    opened = {name: door for name, door in doors.items() if "reason" not in door}
    if not opened:
        return None
    figure, (times, memory) = plt.subplots(1, 2, figsize=(10, 4))
    for (name, door), colour in zip(opened.items(), (BLUE, ORANGE, GREEN), strict=False):
        runs = {float(load): row for load, row in door["open"].items() if "p50_ms" in row}
        for key, line in (("p50_ms", "-"), ("p95_ms", "--"), ("p99_ms", ":")):
            values = [row[key] for row in runs.values()]
            label = f"{name} {key.removesuffix('_ms')}"
            times.plot(list(runs), values, line, marker="o", color=colour, label=label)
        memory.plot(door["memory"]["samples_mib"], color=colour, label=name)
    times.set_xlabel("offered load, as a part of one caller's throughput")
    times.set_ylabel("milliseconds a picture")
    times.set_ylim(bottom=0)
    times.legend(frameon=False, fontsize=8)
    memory.set_xlabel("seconds")
    memory.set_ylabel("memory of the server, MiB")
    memory.set_ylim(bottom=0)
    memory.legend(frameon=False)
    return figure


def floor_bars(graphs: Rows) -> Figure:
    """How close each graph comes to its floor on this machine."""
    figure, axes = _figure(9, 1 + 0.32 * len(graphs))
    shares = [100 * row["share_of_floor"] for row in graphs.values()]
    bars = axes.barh(list(graphs), shares, color=BLUE)
    axes.bar_label(bars, [f"{share:.0f} %" for share in shares], padding=3, fontsize=8)
    axes.axvline(100, color=BLACK, linestyle=":")
    axes.invert_yaxis()
    axes.set_xlabel("the floor as a part of the measured time, %")
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    return plt.subplots(figsize=(width, height))


def _class_legend(axes: Axes, present: set[str]) -> None:
    for name, (colour, marker) in CLASSES.items():
        if name in present:
            axes.plot([], [], color=colour, marker=marker, linestyle="", label=name)
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _ran(contenders: Rows) -> Rows:
    return {name: row for name, row in contenders.items() if "reason" not in row}


def _any(rows: Rows) -> Mapping[str, Any]:
    return next(iter(rows.values()))


plt.rcParams.update(STYLE)
