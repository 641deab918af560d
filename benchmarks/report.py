"""Puts results on one page: `python -m benchmarks.report` writes HTML, and the README's plot.

It reads every result in a folder; they must be complete, unedited and from one machine. Figures of
different classes (exact, near-lossless, cached, hosted) go into separate tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.record import RESULTS, Result, ResultError, read_all

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "out/benchmarks.html"
PLOT = ROOT / "docs/benchmarks.svg"
CLASSES = {
    "exact": "Exact: the same picture but for rounding",
    "near-lossless": "Near-lossless: other arithmetic, nothing skipped",
    "cached": "Cached: some steps reuse earlier ones",
    "few steps": "Few steps: another way from the same noise",
    "style": "Styles: meant to look different",
    "hosted": "Hosted: another machine, paid",
}
CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 80rem; margin: 2rem auto; padding: 0 1rem }
h1, h2 { line-height: 1.2 } h2 { margin-top: 3rem; border-top: 1px solid #ccc; padding-top: 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; display: block;
  overflow-x: auto }
th, td { padding: 0.3rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
td:first-child { white-space: nowrap } caption { text-align: left; font-weight: 600 }
td.reason { text-align: left; color: #555; white-space: normal }
svg { max-width: 100%; height: auto }
footer, .note { color: #555; font-size: 0.9rem }
"""
Cell = str | tuple[str, int]
"""Text, or text over a number of columns."""


def page(results: Mapping[str, Result]) -> str:
    """The whole page."""
    parts = [part for name, make in SECTIONS.items() if name in results for part in make(results)]
    environment = next(iter(results.values()))["environment"]
    shown = f"{environment['cores']} cores of {environment['cpu']}"
    if environment["gpu"]:
        shown += f", {environment['gpu']['name']}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Castmate benchmarks</title><style>{CSS}</style></head><body>\n"
        f"<h1>Castmate benchmarks</h1>\n<p>Measured on {escape(shown)}.</p>\n"
        + "\n".join(parts)
        + f"\n<footer><h2>How it was measured</h2>{_provenance(results)}</footer></body></html>\n"
    )


def _latency(results: Mapping[str, Result]) -> Iterator[str]:
    result = results["latency"]
    request, contenders = result["request"], result["contenders"]
    yield (
        f"<h2>One picture</h2><p>{escape(request['size'])}, "
        f"{request['num_inference_steps']} steps, {escape(result['network'])} with the same "
        "weights everywhere, one request at a time, contenders in "
        "turns. Ratios are medians over rounds; in brackets where a second run is expected.</p>"
    )
    yield plots.svg(plots.percentile_bars(contenders))
    for kind, title in CLASSES.items():
        rows = {name: row for name, row in contenders.items() if row["class"] == kind}
        if rows:
            ratios = result["ratios_to_castmate"]
            yield _table(title, LATENCY, [_latency_row(n, r, ratios) for n, r in rows.items()])
    yield "<h3>Where the time goes</h3>" + plots.svg(plots.stage_bars(contenders))
    starts = [(name, f"{row['p50_ms']:.0f}") for name, row in result["start"].items()]
    yield _table("From a command to its first effect", ("", "p50 ms"), starts)


LATENCY = (
    *("", "p50 ms", "p90", "p95", "p99", "new prompt", "new character", "first request"),
    *("step", "steps computed", "peak MiB", "time / castmate's"),
)


def _latency_row(name: str, row: Mapping[str, Any], ratios: Mapping[str, Any]) -> list[Cell]:
    if "reason" in row:
        return [name, (row["reason"], len(LATENCY) - 1)]
    phases, found = row["phases"], ratios.get(name)
    return [
        name,
        *(f"{row[key]:.0f}" for key in ("p50_ms", "p90_ms", "p95_ms", "p99_ms")),
        *(f"{phases[phase]['p50_ms']:.0f}" for phase in ("new prompt", "new character")),
        f"{row['first_request_ms']:.0f}",
        f"{row['step']['p50_ms']:.2f}" if row["step"] else "",
        "" if row["computed_steps"] is None else f"{row['computed_steps']:.1f}",
        f"{row['peak_mib']:.0f}" if row["peak_mib"] is not None else "",
        f"{found['value']:.2f} ({found['low']:.2f}..{found['high']:.2f})" if found else "1",
    ]


def _quality(results: Mapping[str, Result]) -> Iterator[str]:
    result = results["quality"]
    rows: Mapping[str, Mapping[str, Any]] = result["rows"]
    yield (
        f"<h2>What speed costs</h2><p>{result['pictures']} pictures of held-out characters at "
        f"{escape(result['request']['size'])}, the same noise for all, against torch in fp32; 95 % "
        "bootstrap intervals. PSNR falls by rounding alone: look at the controls first.</p>"
    )
    if any(row["speedup"] and row["class"] == "cached" for row in rows.values()):
        yield plots.svg(plots.pareto(rows))
    columns = [
        name
        for name in ("psnr_db", "ssim", "dino", "judge_look", "judge_prompt")
        if name in next(iter(rows.values()))
    ]
    changes = [f"{name}_change" for name in ("dino", "judge_look", "judge_prompt")]
    changes = [name for name in changes if name in next(iter(rows.values()))]
    heads = ("", "steps", "faster", *(name.replace("_", " ") for name in (*columns, *changes)))
    for kind, title in CLASSES.items():
        lines = [
            [
                name,
                f"{row['computed_steps']['value']:.1f}" if row["computed_steps"] else "",
                f"{row['speedup']['value']:.2f}" if row["speedup"] else "",
                *(f"{row[column]['value']:.3f}" for column in columns),
                *(_spread(row[column]) for column in changes),
            ]
            for name, row in rows.items()
            if row["class"] == kind
        ]
        if lines:
            yield _table(title, heads, lines)
    yield (
        f'<p class="note">LPIPS: {escape(result["lpips"])}. Judge: {escape(result["judge"])}. '
        "Speed of what torch draws is not compared here: no CPU has FP8 arithmetic.</p>"
    )


LOAD_TIMES = ("p50_ms", "p95_ms", "p99_ms")


def _load(results: Mapping[str, Result]) -> Iterator[str]:
    result = results["load"]
    yield (
        "<h2>Many requests</h2><p>Callers that wait for their picture, and Poisson arrivals that "
        "wait for nobody. Goodput is the share of all that were offered and got their picture "
        "within the deadline.</p>"
    )
    if (figure := plots.load_curves(result["doors"])) is not None:
        yield plots.svg(figure)
    heads = ("", "offered", "done", "a second", "p50 ms", "p95", "p99", "deadline ms", "goodput")
    for name, door in result["doors"].items():
        if "reason" in door:
            yield f"<p><b>{escape(name)}</b>: {escape(door['reason'])}</p>"
            continue
        runs = {f"{n} at a time": row for n, row in door["closed"].items()}
        runs |= {f"{float(n):.0%} of one caller's": row for n, row in door["open"].items()}
        lines = [
            [
                load,
                str(row["offered"]),
                str(row["done"]),
                f"{row['pictures_per_s']:.2f}",
                *(f"{row[key]:.0f}" if key in row else "" for key in LOAD_TIMES),
                f"{row['deadline_ms']:.0f}" if "deadline_ms" in row else "",
                f"{row['goodput']:.2f}" if "goodput" in row else "",
            ]
            for load, row in runs.items()
        ]
        yield _table(f"Through {name}", heads, lines)
        memory = door["memory"]
        yield (
            f'<p class="note">Memory of the server: {memory["start_mib"]:.0f} MiB at the start, '
            f"{memory['first_third_mib']:.0f} in the first third, "
            f"{memory['last_third_mib']:.0f} in the last, {memory['most_mib']:.0f} at most.</p>"
        )


def _roofline(results: Mapping[str, Result]) -> Iterator[str]:
    result = results["roofline"]
    own = result["own_peaks"]
    yield (
        "<h2>How much is left</h2><p>The floor of a graph is its matrix products at this machine's "
        f"own peak of {1000 * own['tflops']:.0f} GFLOP/s in fp32, measured.</p>"
    )
    yield plots.svg(plots.floor_bars(result["graphs"]))
    floors = result["full_size"]["floors_ms"]
    names = list(next(iter(floors.values())))
    lines = [
        [name, *("{bf16:.2f} / {fp8:.2f}".format(**floors[gpu][name]) for gpu in floors)]
        for name in names
    ]
    yield _table(
        "Floors at full size, 1024*1024, ms in bf16 / with FP8 products: computed from data-sheet "
        "peaks, not measured",
        ("", *floors),
        lines,
    )


def _full_size(results: Mapping[str, Result]) -> Iterator[str]:
    result = results["full-size"]
    yield (
        f"<h2>Torch, one optimisation after the other</h2><p>{escape(result['network'])}, random "
        f"weights, {escape(result['request']['size'])}, {result['request']['num_inference_steps']} "
        "steps.</p>"
    )
    heads = ("", "class", "step p50 ms", "picture ms", "share of the floor", "steps computed")
    lines: list[list[Cell]] = []
    for name, row in result["rows"].items():
        if "reason" in row:
            lines.append([name, row["class"], (row["reason"], 4)])
            continue
        share = row["share_of_floor"]
        lines.append(
            [
                name,
                row["class"],
                f"{row['step']['p50_ms']:.2f}",
                f"{row['picture']['p50_ms']:.0f}",
                "" if share is None else f"{share:.0%}",
                f"{row['computed_steps']:.1f}",
            ]
        )
    yield _table("", heads, lines)


SECTIONS: Mapping[str, Callable[[Mapping[str, Result]], Iterator[str]]] = {
    "latency": _latency,
    "quality": _quality,
    "load": _load,
    "roofline": _roofline,
    "full-size": _full_size,
}


def _provenance(results: Mapping[str, Result]) -> str:
    lines = []
    for name, result in results.items():
        one = result["environment"]
        changed = " with changes" if one["modified"] else ""
        clock = one["clock"]["governor"] or "unknown"
        load, commit = f"{one['load_average']:.2f}", f"{one['commit'][:9]}{changed}"
        lines.append([name, one["command"], commit, one["date"], load, clock])
    heads = ("", "command", "commit", "date", "load average", "CPU governor")
    packages = next(iter(results.values()))["environment"]["packages"]
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    return _table("", heads, lines) + f"<p>{escape(versions)}</p>"


def _spread(value: Mapping[str, float]) -> str:
    return f"{value['value']:+.3f} ({value['low']:+.3f}..{value['high']:+.3f})"


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    def cell(value: Cell) -> str:
        if isinstance(value, tuple):
            return f'<td class="reason" colspan="{value[1]}">{escape(value[0])}</td>'
        return f"<td>{escape(value)}</td>"

    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "\n".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of one machine")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--plot", type=Path, help=f"also the README's plot, such as {PLOT.name}")
    given = parser.parse_args(arguments)
    try:
        results = read_all(given.results, SECTIONS)
    except ResultError as error:
        print(error, file=sys.stderr)
        return 1
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(page(results))
    print(given.out)
    if given.plot is not None and "latency" in results:
        figure = plots.percentile_bars(results["latency"]["contenders"])
        given.plot.write_text(plots.svg(figure))
        print(given.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
