"""Time and memory of one picture, Castmate beside torch eager: `python -m benchmarks.latency`.

Both run the same weights, each in its own process, one request at a time, in turns A B B A, so that
a machine that grows slower is slower for both. The ratio of the medians is the figure to quote.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.contenders import CONTENDERS
from export.environment import describe

RESULTS = Path(__file__).parent / "results"
REFERENCE = Path(__file__).parent.parent / "castmate/bundles/toon/references/mira.png"
WARM_UPS = 2


class Worker:
    """A contender's process."""

    def __init__(self, name: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contenders", name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self._read()

    def draw(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make one picture and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the contender ended; its error is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def prepare(folder: Path, checkpoint: Path | None) -> None:
    """Write one network twice: as a state dict for torch and as a bundle for Castmate."""
    import torch

    from demo_model.build import build
    from demo_model.config import TOON
    from export.models.network import InstantCharacter

    torch.manual_seed(0)
    network = InstantCharacter(TOON)
    if checkpoint is not None:
        from demo_model.checkpoint import load_network

        network = load_network(checkpoint)
    build(network, folder)
    torch.save(network.state_dict(), folder / "network.pt")
    shutil.copy(REFERENCE, folder / "reference.png")


def summarize(answers: Sequence[dict[str, Any]], ready: dict[str, Any]) -> dict[str, Any]:
    """Median and range of a contender's answers; peak memory is the last it reported."""
    totals = sorted(answer["total_ms"] for answer in answers)
    stages = {
        stage: round(statistics.median(answer["stages_ms"][stage] for answer in answers), 2)
        for stage in answers[0]["stages_ms"]
    }
    return {
        "p50_ms": round(statistics.median(totals), 1),
        "min_ms": round(totals[0], 1),
        "max_ms": round(totals[-1], 1),
        "runs": len(totals),
        "stages_p50_ms": stages,
        "load_ms": round(ready["load_ms"], 1),
        "peak_mib": round(answers[-1]["peak_mib"], 1),
        "heavy_modules_loaded": answers[-1]["loaded"],
    }


def command_ms(command: Sequence[str], runs: int) -> dict[str, Any]:
    """Wall time of a whole process."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(1000 * (time.perf_counter() - start))
    counted = times[1:]
    return {
        "p50_ms": round(statistics.median(counted), 1),
        "min_ms": round(min(counted), 1),
        "max_ms": round(max(counted), 1),
        "runs": runs,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="counted pictures each (default 10)")
    parser.add_argument("--size", default="512*512", help="W*H (default 512*512)")
    parser.add_argument("--steps", type=int, default=28, help="denoise steps (default 28)")
    parser.add_argument(
        "--checkpoint", type=Path, help="weights for both; default random: speed is the same"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "latency-cpu.json")
    options = parser.parse_args()
    request = {
        "prompt": "waving on the beach",
        "image": "reference.png",
        "size": options.size,
        "num_inference_steps": options.steps,
    }
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        prepare(folder, options.checkpoint)
        workers = {name: Worker(name, folder) for name in CONTENDERS}
        for worker in workers.values():
            stack.callback(worker.close)
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
        for number in track(range(WARM_UPS + options.runs), "Measuring", transient=True):
            order = list(workers) if number % 2 == 0 else list(reversed(workers))
            for name in order:
                answers[name].append(workers[name].draw(request | {"seed": number}))
        contenders = {
            name: summarize(answers[name][WARM_UPS:], workers[name].ready) for name in workers
        }
        first_ms = answers["castmate"][0]["total_ms"]
    report = {
        "benchmark": "latency",
        "environment": describe(),
        "request": request,
        "weights": "random" if options.checkpoint is None else "trained",
        "contenders": contenders,
        "first_picture_ms": round(first_ms, 1),
        "ratio_time": ratio(contenders, "p50_ms"),
        "ratio_peak_memory": ratio(contenders, "peak_mib"),
        "start": {
            "import castmate": command_ms([sys.executable, "-c", "import castmate"], 5),
            "castmate --help": command_ms(
                [str(Path(sys.executable).with_name("castmate")), "--help"], 5
            ),
            "python -c pass": command_ms([sys.executable, "-c", "pass"], 5),
        },
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    show(report)


def ratio(contenders: dict[str, dict[str, Any]], figure: str) -> float:
    """How many times more of `figure` eager torch takes."""
    return round(contenders["diffusers-eager"][figure] / contenders["castmate"][figure], 2)


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    size, steps = report["request"]["size"], report["request"]["num_inference_steps"]
    table = Table(title=f"toon, {size}, {steps} steps, {report['environment']['cpu']}")
    for heading in ("contender", "p50 ms", "min..max ms", "peak MiB", "load ms"):
        table.add_column(heading, justify="left" if heading == "contender" else "right")
    for name, row in report["contenders"].items():
        table.add_row(
            name,
            f"{row['p50_ms']:.0f}",
            f"{row['min_ms']:.0f}..{row['max_ms']:.0f}",
            f"{row['peak_mib']:.0f}",
            f"{row['load_ms']:.0f}",
        )
    console = Console()
    console.print(table)
    console.print(f"time {report['ratio_time']}x, peak memory {report['ratio_peak_memory']}x less")
    for name, row in report["start"].items():
        console.print(f"{name}: {row['p50_ms']:.0f} ms")


if __name__ == "__main__":
    main()
