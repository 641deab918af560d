"""The plot of docs/results.md: likeness by computed steps. `python -m benchmarks.quality_plot`.

Steps and not seconds, since they are the same on every machine. Styles are left out: they are
meant to draw another picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.plots import CLASSES, STYLE, svg
from benchmarks.record import read

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/quality-cpu.json"
PLOT = ROOT / "docs/quality.svg"
STEPS = (4, 8, 16, 28)


def draw(result: dict[str, Any]) -> str:
    """A result of `benchmarks.quality` as SVG."""
    rows = {
        name: row
        for name, row in result["rows"].items()
        if row["computed_steps"] and not row["control"] and row["class"] != "style"
    }
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
        _points(left, rows, "ssim")
        left.set_ylabel("SSIM to the exact picture")
        _points(right, rows, "dino_change")
        right.set_ylabel("change of the cosine to the reference, DINOv2")
        control = result["rows"]["another seed (control)"]["dino_change"]
        right.axhspan(control["low"], control["high"], color="#eeeeee", zorder=0)
        right.annotate("grey: another seed", (0.98, 0.95), xycoords="axes fraction", ha="right")
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_xlim(left=2.6)  # room for the names
            axes.set_xticks(STEPS, [str(number) for number in STEPS])
            axes.minorticks_off()
            axes.set_xlabel(f"steps computed of {result['request']['num_inference_steps']}")
        left.legend(frameon=False, loc="lower right")
        return svg(figure)


def _points(axes: Axes, rows: dict[str, dict[str, Any]], key: str) -> None:
    """One point a row, with its interval; few steps have a name, and classes are in the legend."""
    named: set[str] = set()
    placed: set[tuple[str, float]] = set()
    for name, row in rows.items():
        colour, marker = CLASSES[row["class"]]
        value, x = row[key], row["computed_steps"]["value"]
        swept = "subject_scale" in row
        label = f"{row['class']}, subject_scale 0.6 to 1.2" if swept else row["class"]
        axes.errorbar(
            x * (1 + 0.12 * (row["subject_scale"] - 0.8)) if swept else x,
            value["value"],
            yerr=[[value["value"] - value["low"]], [value["high"] - value["value"]]],
            marker=marker,
            markersize=4 if swept else 8,
            color="#999999" if swept else colour,
            linestyle="",
            capsize=2,
            elinewidth=0.8,
            label=None if label in named else label,
        )
        named.add(label)
        who = name.split(", ")[0]
        if row["class"] == "few steps" and not swept and (who, x) not in placed:
            placed.add((who, x))
            point = (x, value["value"])
            axes.annotate(who, point, (-9, -3), textcoords="offset points", ha="right", size=8)


def main() -> None:
    """Write the plot."""
    PLOT.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n{draw(read(RESULT))}')


if __name__ == "__main__":
    main()
