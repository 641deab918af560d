"""Puts the committed results into the README: `python -m benchmarks.readme`.

A table stands between `<!-- name -->` and `<!-- /name -->`; a test checks that it is this one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = Path(__file__).parent / "results"


def toon_quality(report: dict[str, Any]) -> str:
    """What the judge recognises in the demo model's pictures."""
    shares: dict[str, dict[str, float]] = report["shares"]
    names = list(next(iter(shares.values())))
    lines = [
        f"| {report['pictures_a_row']} held-out characters | "
        + " | ".join(name.replace("_", " ") for name in names)
        + " |",
        "|---|" + "---|" * len(names),
    ]
    for row, scores in shares.items():
        cells = " | ".join(f"{scores[name]:.2f}" for name in names)
        lines.append(f"| {_escaped(row)} | {cells} |")
    lines += ["", "| what was looked for | share of pictures |", "|---|---|"]
    for name, share in report["shares_by_words"].items():
        lines.append(f"| {_escaped(name)} | {share:.2f} |")
    return "\n".join(lines)


def latency(report: dict[str, Any]) -> str:
    """One picture, Castmate beside torch."""
    request, machine = report["request"], report["environment"]
    lines = [
        f"| toon, {_escaped(request['size'])}, {request['num_inference_steps']} steps, "
        f"{machine['cores']} cores of {machine['cpu']} | p50 ms | min..max ms | peak MiB |",
        "|---|---|---|---|",
    ]
    for name, row in report["contenders"].items():
        if "reason" in row:
            lines.append(f"| {name} | {_escaped(row['reason'])} | | |")
            continue
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        times = f"{row['p50_ms']:.0f} | {row['min_ms']:.0f}..{row['max_ms']:.0f}"
        lines.append(f"| {name} | {times} | {peak} |")
    if "ratios_to_castmate" in report:
        found = report["ratios_to_castmate"]["diffusers-eager"]
        times = f"{found['value']:.2f} ({found['low']:.2f}..{found['high']:.2f})"
    else:
        times = f"{report['ratio_time']:.2f}"
    lines.append(f"| diffusers-eager / castmate | {times} | | {report['ratio_peak_memory']:.2f} |")
    return "\n".join(lines)


def step_caching(report: dict[str, Any]) -> str:
    """What skipping steps gains, and what it costs."""
    shown = {
        "castmate": "off",
        "balanced": "balanced",
        "fast": "fast",
        "other kernels (control)": "control: off, other kernels",
        "another seed (control)": "control: off, another seed",
    }
    lines = [
        f"| `cache`, {report['pictures']} pictures | steps computed | times faster | "
        "SSIM to torch fp32 | DINO identity, change | judged look, change |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in shown.items():
        if (row := report["rows"].get(name)) is None:
            continue
        timed = "" if row["control"] else f"{row['speedup']['value']:.2f}"
        cells = (
            _change(row[key]) if key in row else "" for key in ("dino_change", "judge_look_change")
        )
        steps = f"{row['computed_steps']['value']:.1f} | {timed} | {row['ssim']['value']:.3f}"
        lines.append(f"| {title} | {steps} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _change(value: dict[str, float]) -> str:
    shown = {name: round(number, 3) + 0.0 for name, number in value.items()}  # no -0.000
    return "{value:+.3f} ({low:+.3f}..{high:+.3f})".format(**shown)


BLOCKS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "toon-quality": ("toon-quality.json", toon_quality),
    "latency": ("latency-cpu.json", latency),
    "step-caching": ("quality-cpu.json", step_caching),
}


def filled(text: str) -> str:
    """The README with every table that it has a place for, as the results give it.

    Raises:
        ValueError: A place has no end.
    """
    for name, (file, table) in BLOCKS.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not start:
            continue
        if not end:
            raise ValueError(f"README.md: the place for {name} has no end")
        result = RESULTS / file
        shown = table(json.loads(result.read_text())) if result.exists() else "Not measured yet."
        text = f"{before}{start}{shown}\n{end}{after}"
    return text


def _escaped(text: str) -> str:
    return text.replace("*", r"\*")


def main() -> None:
    """Command line."""
    README.write_text(filled(README.read_text()))


if __name__ == "__main__":
    main()
