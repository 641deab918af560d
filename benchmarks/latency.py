"""Time and memory of one picture, every contender in one run: `python -m benchmarks.latency`.

All use the same weights, each in its own process, one request at a time (MLPerf's SingleStream), in
turns A B B A, so that a machine that slows down does so for all. Ratios are taken round by round;
quote them rather than the milliseconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.contenders import CONTENDERS, Class
from benchmarks.figures import percentiles, ratio
from benchmarks.protocol import Setup, Worker
from benchmarks.workload import Workload
from castmate.engines.bundle import Bundle
from export.environment import write_result

RESULTS = Path(__file__).parent / "results"
WARM_UPS = 2
BASE = "castmate"
EAGER = "diffusers-eager"
PHASE = "again"
"""The phase of the main figures: neither prompt nor character is new, so that all contenders do the
same work but for what one of them remembers of its own accord."""

Answers = Mapping[str, list[dict[str, Any]]]


def measure(setup: Setup, workload: Workload, names: Iterable[str], runs: int) -> dict[str, Any]:
    """Measure contenders side by side.

    Args:
        setup: What every contender gets.
        workload: The requests.
        names: Keys of `CONTENDERS`.
        runs: Measured rounds, after `WARM_UPS` that are not.
    """
    with ExitStack() as stack:
        workers = {}
        for name in track(list(names), "Starting", transient=True):
            workers[name] = Worker(name, setup)
            stack.callback(workers[name].close)
        reasons = {name: str(worker.reason) for name, worker in workers.items() if worker.reason}
        first, answers = _rounds(workers, reasons, workload, runs, setup.spend)
    rows = {
        name: {"class": CONTENDERS[name].kind, "reason": reasons[name]}
        if name in reasons
        else {
            "class": CONTENDERS[name].kind,
            **summarize(answers[name], workers[name].ready),
            **({} if CONTENDERS[name].in_process else {"peak_mib": None}),
            "first_request_ms": round(first[name], 1),
        }
        for name in workers
    }
    measured = [name for name in rows if "reason" not in rows[name]]
    ratios = {
        name: ratio(*(totals(answers[one], PHASE) for one in (name, BASE)))
        for name in measured
        if name != BASE and BASE in measured and CONTENDERS[name].kind is not Class.HOSTED
    }
    return {"contenders": rows, "ratios_to_castmate": ratios}


def _rounds(
    workers: Mapping[str, Worker],
    reasons: dict[str, str],
    workload: Workload,
    runs: int,
    spend: int,
) -> tuple[dict[str, float], dict[str, dict[str, list[dict[str, Any]]]]]:
    """Each contender's first request and its answers by phase; records why some cannot run."""
    first: dict[str, float] = {}
    answers: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in workers}
    every = enumerate(workload.rounds(WARM_UPS + runs))
    for number, requests in track(every, "Measuring", WARM_UPS + runs, transient=True):
        order = list(workers) if number % 2 == 0 else list(workers)[::-1]
        for phase, request in requests.items():
            for name in order:
                hosted = CONTENDERS[name].kind is Class.HOSTED
                if name in reasons or (hosted and len(answers[name].get(phase, ())) >= spend):
                    continue
                answer = workers[name].draw(request)
                if "reason" in answer:
                    reasons[name] = answer["reason"]
                    continue
                first.setdefault(name, answer["total_ms"])
                if number >= WARM_UPS:
                    answers[name].setdefault(phase, []).append(answer)
    return first, answers


def totals(answers: Answers, phase: str) -> list[float]:
    """Milliseconds for every picture of a phase."""
    return [answer["total_ms"] for answer in answers[phase]]


def summarize(answers: Answers, ready: Mapping[str, Any]) -> dict[str, Any]:
    """One contender's statistics."""
    main = answers[PHASE]
    stages = {
        stage: round(float(np.median([answer["stages_ms"][stage] for answer in main])), 2)
        for stage in main[0]["stages_ms"]
    }
    steps = [ms for answer in main for ms in answer["steps_ms"]]
    computed = [answer["computed_steps"] for answer in main]
    return {
        **percentiles(totals(answers, PHASE)),
        "phases": {phase: percentiles(totals(answers, phase)) for phase in answers},
        "stages_p50_ms": stages,
        "step": percentiles(steps) if steps else None,
        "computed_steps": None if None in computed else float(np.mean(computed)),
        "load_ms": round(ready["load_ms"], 1),
        "peak_mib": round(main[-1]["peak_mib"], 1),
        "heavy_modules_loaded": main[-1]["loaded"],
    }


def command_ms(command: Sequence[str], runs: int) -> dict[str, Any]:
    """Wall time of a whole process."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(1000 * (time.perf_counter() - start))
    return percentiles(times[1:])


def starts() -> dict[str, Any]:
    """Time until a command has its first effect."""
    python, castmate = sys.executable, str(Path(sys.executable).with_name("castmate"))
    return {
        "import castmate": command_ms([python, "-c", "import castmate"], 5),
        "castmate --help": command_ms([castmate, "--help"], 5),
        "python -c pass": command_ms([python, "-c", "pass"], 5),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("contenders", nargs="*", help=f"default all: {', '.join(CONTENDERS)}")
    parser.add_argument("--runs", type=int, default=12, help="counted rounds (default 12)")
    parser.add_argument("--size", default="512*512", help="W*H (default 512*512)")
    parser.add_argument("--steps", type=int, default=28, help="denoise steps (default 28)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads each; 0 is every core")
    parser.add_argument("--bundle", default="toon", help="a shipped name or a folder")
    parser.add_argument("--plans", default="", help="folder of a TensorRT bundle")
    parser.add_argument("--spend", type=int, default=0, help="hosted pictures that may be paid")
    parser.add_argument("--out", type=Path, default=RESULTS / "latency-cpu.json")
    given = parser.parse_args()
    if given.runs < 5:
        parser.error("--runs: at least 5, a median of fewer says little")
    if unknown := set(given.contenders) - set(CONTENDERS):
        parser.error(f"no contender {', '.join(unknown)}; there are {', '.join(CONTENDERS)}")
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(given.bundle, folder, given.plans, given.threads, given.spend)
        workload = Workload(Path(folder), given.size, given.steps)
        figures = measure(setup, workload, given.contenders or CONTENDERS, given.runs)
    rows = figures["contenders"]
    both = [rows[name] for name in (EAGER, BASE) if "peak_mib" in rows.get(name, {})]
    result = write_result(
        given.out,
        "latency",
        {
            "request": {"size": given.size, "num_inference_steps": given.steps},
            "network": Bundle.open(given.bundle).name,
            "warm_ups": WARM_UPS,
            **figures,
            "ratio_peak_memory": round(both[0]["peak_mib"] / both[1]["peak_mib"], 2)
            if len(both) == 2
            else None,
            "start": starts(),
        },
    )
    show(result)


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    request = result["request"]
    title = f"{request['size']}, {request['num_inference_steps']} steps, milliseconds"
    table = Table("contender", "class", title=title)
    for heading in ("p50", "p95", "new prompt", "new character", "x castmate", "computed"):
        table.add_column(heading, justify="right")
    for name, row in result["contenders"].items():
        if "reason" in row:
            table.add_row(name, row["class"], "-", "-", "-", "-", "-", row["reason"])
            continue
        phases = row["phases"]
        found = result["ratios_to_castmate"].get(name)
        table.add_row(
            name,
            row["class"],
            *(f"{row[key]:.0f}" for key in ("p50_ms", "p95_ms")),
            *(f"{phases[phase]['p50_ms']:.0f}" for phase in ("new prompt", "new character")),
            f"{found['value']:.2f} ({found['low']:.2f}..{found['high']:.2f})" if found else "",
            "" if row["computed_steps"] is None else f"{row['computed_steps']:.1f}",
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
