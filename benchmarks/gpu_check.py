"""Checks a GPU in ten minutes: `make gpu-check`, or `python -m benchmarks.gpu_check`.

Runs `castmate doctor`, the tests that need a GPU, and the full-size ladder with random weights.
Each part is a separate process with a share of the time; its output and measurements are written
when it ends, so that running out of time loses nothing. Parts that cannot run here are skipped with
the reason. `--size micro` rehearses it anywhere in a minute.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from export.environment import write_result
from export.families.instantcharacter.config import FLUX
from export.placement import ACTIVATIONS
from export.precision import Precision
from export.sizes import graph_sizes, meta_network

RESULTS = Path(__file__).parent / "results/gpu"
ROOT = Path(__file__).parents[1]
TAIL = 4000
"""Characters of a part's output that its result keeps; all of it is in the log beside it."""
SIZES = {
    "full": ("--network", "flux"),
    "micro": ("--network=toon", "--side=512", "--steps=2", "--runs=1", "--rungs=4"),
}
"""Arguments of the ladder."""


@dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        name: Of its log and in the result.
        command: What `python` runs, from the minutes that it has.
        share: Of the time that is left when it begins.
        unfit: Why it cannot run here; None where it can.
    """

    name: str
    command: Callable[[float], Sequence[str]]
    share: float
    unfit: Callable[[], str | None] = lambda: None


def parts(size: str, out: Path) -> tuple[Part, ...]:
    """What is run, the quickest first.

    Args:
        size: A key of `SIZES`.
        out: Folder of the results.
    """
    ladder = ("-m", "benchmarks.full_size", *SIZES[size], "--out", str(out / "full-size.json"))
    tests = ("-m", "pytest", "-m", "gpu", "tests/gpu", "-q", "-rs")
    return (
        Part("doctor", lambda minutes: ("-m", "castmate.cli", "doctor", "--verify", "--json"), 0.2),
        Part("tests", lambda minutes: tests, 0.5, _no_tests),
        Part(
            "ladder",
            lambda minutes: (*ladder, "--minutes", f"{minutes:.2f}"),
            1.0,
            _no_ladder if size == "full" else lambda: None,
        ),
    )


def check(
    some: Sequence[Part], minutes: float, out: Path, keep: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """Run the parts, each within its share of what is left.

    Args:
        some: From `parts`.
        minutes: For all of them.
        out: Folder of their logs.
        keep: Gets what is known after each part.

    Returns:
        Of each part its exit code, seconds and the end of its output, or why it was skipped.
    """
    end, known = time.monotonic() + 60 * minutes, dict[str, Any]()
    for part in some:
        left = (end - time.monotonic()) * part.share
        if reason := part.unfit():
            known[part.name] = {"skipped": reason}
        elif left <= 0:
            known[part.name] = {"skipped": "no time was left: give more --minutes"}
        else:
            known[part.name] = _run(part, left, out)
        keep(known)
    return known


def _run(part: Part, seconds: float, out: Path) -> dict[str, Any]:
    """One part; one that takes too long is ended with its children, and its log stays."""
    log = out / f"{part.name}.log"
    print(f"{part.name}: up to {seconds / 60:.1f} minutes, {log}", flush=True)
    started = time.monotonic()
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, *part.command(seconds / 60)],
            cwd=ROOT,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    said = log.read_text(errors="replace")[-TAIL:]
    print(said)
    taken = round(time.monotonic() - started, 1)
    return {"code": process.returncode, "seconds": taken, "output": said}


def _no_tests() -> str | None:
    """Tests need a GPU, and the packages of the tests."""
    for package, extra in (("pytest", "dev"), ("cuda", "rtx or tensorrt")):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install -e '.[{extra}]'"
    return None if torch.cuda.is_available() else "no NVIDIA GPU that torch can use is here"


def _no_ladder() -> str | None:
    """The full size in torch needs its weights in bf16 and room for activations."""
    if not torch.cuda.is_available():
        return "no NVIDIA GPU that torch can use is here; --size micro rehearses on the CPU"
    sizes = graph_sizes(meta_network(FLUX)).values()
    need = sum(size.num_bytes(Precision.BF16) for size in sizes) + ACTIVATIONS
    free, _ = torch.cuda.mem_get_info()
    if need <= free:
        return None
    return (
        f"the full size in torch takes {need / 1e9:.0f} GB of GPU memory, {free / 1e9:.0f} GB are "
        "free: engines of castmate are smaller, see docs/flux.md"
    )


def show(parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what ran, and why the rest did not."""
    table = Table("part", "seconds", "")
    for name, row in parts.items():
        if reason := row.get("skipped"):
            table.add_row(name, "", f"skipped: {reason}")
            continue
        killed = row["code"] == -signal.SIGKILL
        end = "its time was over" if killed else f"exit code {row['code']}"
        table.add_row(name, str(row["seconds"]), end)
    Console(width=120).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; 1 if a test or the ladder failed. What was skipped or stopped has not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all parts together")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)

    def keep(known: dict[str, Any]) -> None:
        figures = {"size": given.size, "minutes": given.minutes, "parts": known}
        write_result(given.out / "check.json", "gpu-check", figures)

    given.out.mkdir(parents=True, exist_ok=True)
    known = check(parts(given.size, given.out), given.minutes, given.out, keep)
    show(known)
    print(given.out)
    failed = [name for name, row in known.items() if row.get("code", 0) > 0]
    return int(bool({*failed} - {"doctor"}))  # it reports what is missing, and that is no failure


if __name__ == "__main__":
    sys.exit(main())
