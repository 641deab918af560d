"""The plot of docs/scale.md: waits by load and size, the gain of more ledgers, and a burst."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.plots import BLUE, GREEN, ORANGE, PINK, STYLE, svg

COLOURS = (BLUE, GREEN, ORANGE, PINK)
MARKERS = ("o", "s", "^", "D")


def draw(result: dict[str, Any]) -> str:
    """A result of `benchmarks.fleet` as SVG."""
    with plt.rc_context(STYLE):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8))
        _waits(left, result)
        _partitions(middle, result)
        _bursts(right, result)
        return svg(figure)


def _waits(axes: Axes, result: dict[str, Any]) -> None:
    sizes = sorted({row["gpus"] for row in result["sizes"]})
    for size, colour, marker in zip(sizes, COLOURS, MARKERS, strict=True):
        rows = [row for row in result["sizes"] if row["gpus"] == size]
        # A wait of nothing cannot be shown on a scale of powers.
        waits = [max(row["wait_p95_s"], 0.01) for row in rows]
        loads = [row["load"] for row in rows]
        axes.plot(loads, waits, color=colour, marker=marker, label=f"{size} GPU{'s'[: size > 1]}")
    axes.set_yscale("log")
    axes.set_xlabel("load, as a share of what the GPUs draw")
    axes.set_ylabel("wait for a GPU, p95, seconds")
    axes.legend(frameon=False)


def _partitions(axes: Axes, result: dict[str, Any]) -> None:
    rows = result["partitions"]
    counts = [row["partitions"] for row in rows]
    axes.plot(counts, [row["drawn_per_s"] for row in rows], color=BLUE, marker="o")
    offered = rows[0]["load"] * rows[0]["gpus"] / result["parameters"]["picture_s"]
    axes.axhline(offered, color="#999999", linestyle="--", label="asked for")
    axes.set_xticks(counts)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("ledgers")
    axes.set_ylabel(f"predictions a second, {rows[0]['gpus']} GPUs")
    axes.legend(frameon=False)


def _bursts(axes: Axes, result: dict[str, Any]) -> None:
    for one, colour, marker in zip(result["bursts"], COLOURS, MARKERS, strict=False):
        minutes, waits = zip(*one["wait_p95_s"], strict=True)
        label = f"{one['load_s'] / 60:.0f} min to load"
        axes.plot(minutes, waits, color=colour, marker=marker, markevery=5, label=label)
    start, end = (second / 60 for second in result["parameters"]["burst_s"])
    axes.axvspan(start, end, color="#eeeeee", zorder=0)
    axes.set_xlabel("minutes; twice the arrivals in the grey part")
    axes.set_ylabel("wait, p95, seconds")
    axes.legend(frameon=False)
