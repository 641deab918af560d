"""Many requests at once, through Triton and the gateway: `python -m benchmarks.load`.

Closed loop: a fixed number of callers, each waiting for its picture (like MLPerf's Offline
scenario, perf_analyzer and aiperf). Open loop: Poisson arrivals, independent of the answers (like
MLPerf's Server scenario); a closed loop hides the queue. A request's time starts when it was due.
Goodput is the share of all offered requests that got their picture within the deadline.

NVIDIA's perf_analyzer measures only Triton, and times a stream's first response, which here is
progress; `python -m benchmarks.triton --perf-analyzer` runs it. So these loops are Castmate's own.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.figures import percentiles
from benchmarks.gateway_process import RestClient, gateway
from benchmarks.protocol import Setup, Unfit
from benchmarks.served import environment, triton_server
from castmate.clients.triton.client import TritonClient
from castmate.errors import CastmateError
from castmate.images import Reference
from castmate.schema import GenerateRequest
from export.environment import write_result

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
REFERENCE = ROOT / "castmate/bundles/toon/references/mira.png"
CONCURRENCIES = (1, 2, 4)
LOADS = (0.5, 0.8, 1.2)
"""Offered load, as a part of what one caller after the other gets done."""
DEADLINE_FACTOR = 4.0
MIB = 2**20

Draw = Callable[[GenerateRequest], Awaitable[object]]


@dataclass(frozen=True)
class Door:
    """A running server: how to request a picture from it, and its process."""

    draw: Draw
    pid: int


@dataclass
class Tally:
    """The outcome of the requests in one run.

    Attributes:
        times_ms: Times of those that got their picture.
        refused: Number of refused or failed requests, by error.
        offered: Number of all requests.
    """

    times_ms: list[float] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    offered: int = 0

    async def ask(self, draw: Draw, request: GenerateRequest, due: float) -> None:
        """Send a request that was due at `due` (performance counter) and record its outcome."""
        self.offered += 1
        try:
            await draw(request)
        except (CastmateError, RuntimeError) as error:
            name = type(error).__name__
            self.refused[name] = self.refused.get(name, 0) + 1
        else:
            self.times_ms.append(1000 * (time.perf_counter() - due))

    def figures(self, seconds: float, deadline_ms: float | None) -> dict[str, Any]:
        """The run's statistics."""
        done = len(self.times_ms)
        values: dict[str, Any] = {
            "offered": self.offered,
            "done": done,
            "refused": self.refused,
            "pictures_per_s": round(done / seconds, 3),
            **(percentiles(self.times_ms) if done else {}),
        }
        if deadline_ms is not None:
            good = sum(ms <= deadline_ms for ms in self.times_ms)
            values |= {
                "deadline_ms": round(deadline_ms, 1),
                "goodput": round(good / max(1, self.offered), 4),
            }
        return values


class Memory:
    """The memory of a server's processes in MiB, sampled once a second."""

    def __init__(self, pid: int) -> None:
        self._pid, self.samples_mib = pid, [_memory_mib(pid)]

    async def watch(self) -> None:
        """Sample until the task is cancelled."""
        while True:
            await asyncio.sleep(1)
            self.samples_mib.append(_memory_mib(self._pid))

    def figures(self) -> dict[str, Any]:
        """First, last and maximum, and the means of the first and the last third."""
        third = max(1, len(self.samples_mib) // 3)
        parts = {"first": self.samples_mib[:third], "last": self.samples_mib[-third:]}
        return {
            "start_mib": self.samples_mib[0],
            "most_mib": max(self.samples_mib),
            **{f"{name}_third_mib": round(float(np.mean(p)), 1) for name, p in parts.items()},
            "samples_mib": self.samples_mib,
        }


def _memory_mib(pid: int) -> float:
    total = 0
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return round(total / MIB, 1)


async def closed(
    draw: Draw, requests: Sequence[GenerateRequest], callers: int, seconds: float
) -> tuple[Tally, float]:
    """`callers` that repeat as soon as they are answered; the outcome, and seconds."""
    tally, begun = Tally(), time.perf_counter()
    left = itertools.cycle(requests)

    async def call() -> None:
        while time.perf_counter() - begun < seconds:
            await tally.ask(draw, next(left), time.perf_counter())

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())
    return tally, time.perf_counter() - begun


async def poisson(
    draw: Draw, requests: Sequence[GenerateRequest], per_s: float, seconds: float
) -> tuple[Tally, float]:
    """Random arrivals from a fixed seed; ends when the last one is answered."""
    gaps = np.random.default_rng(0).exponential(1 / per_s, size=int(10 + 3 * per_s * seconds))
    due_s = [moment for moment in np.cumsum(gaps) if moment < seconds]
    tally, begun = Tally(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for moment, request in zip(due_s, itertools.cycle(requests), strict=False):
            await asyncio.sleep(max(0.0, begun + moment - time.perf_counter()))
            group.create_task(tally.ask(draw, request, begun + moment))
    return tally, time.perf_counter() - begun


@asynccontextmanager
async def triton(setup: Setup) -> AsyncIterator[Door]:
    """A tritonserver."""
    with triton_server(setup) as server:
        client = TritonClient((server.url,))
        reference = Reference.from_bytes(REFERENCE.read_bytes(), REFERENCE.name)
        try:
            yield Door(lambda request: client.generate(request, reference), server.pid)
        finally:
            await client.aclose()


@asynccontextmanager
async def rest(setup: Setup) -> AsyncIterator[Door]:
    """`castmate serve`."""
    with gateway(Path(setup.folder), environment(setup)) as running:
        client = RestClient(running.url, running.key)
        try:
            yield Door(client.draw, running.pid)
        finally:
            await client.aclose()


DOORS = {"triton": triton, "gateway": rest}


async def measure_door(
    name: str, setup: Setup, requests: Sequence[GenerateRequest], seconds: float
) -> dict[str, Any]:
    """Every load through one door, or the reason why it cannot start."""
    async with AsyncExitStack() as stack:
        try:
            door = await stack.enter_async_context(DOORS[name](setup))
            await door.draw(requests[0])
        except Unfit as error:
            return {"reason": str(error)}
        memory = Memory(door.pid)
        watching = asyncio.create_task(memory.watch())
        stack.callback(watching.cancel)
        loops = {}
        for callers in CONCURRENCIES:
            tally, took_s = await closed(door.draw, requests, callers, seconds)
            loops[str(callers)] = tally.figures(took_s, None)
        alone = loops["1"]
        deadline_ms = DEADLINE_FACTOR * alone["p50_ms"]
        arrivals = {}
        for load in LOADS:
            per_s = load * alone["pictures_per_s"]
            tally, took_s = await poisson(door.draw, requests, per_s, 2 * seconds)
            figures = tally.figures(took_s, deadline_ms)
            arrivals[str(load)] = {"offered_per_s": round(per_s, 3), **figures}
        return {"closed": loops, "open": arrivals, "memory": memory.figures()}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    columns = ("offered", "done", "per s", "p50", "p95", "p99", "goodput")
    table = Table("door", "load", *columns)
    for name, door in result["doors"].items():
        if "reason" in door:
            table.add_row(name, door["reason"])
            continue
        runs = {f"{callers} callers": row for callers, row in door["closed"].items()}
        runs |= {f"{load} of capacity": row for load, row in door["open"].items()}
        for load, row in runs.items():
            times = (
                f"{row[key]:.0f}" if key in row else "-" for key in ("p50_ms", "p95_ms", "p99_ms")
            )
            goodput = f"{row['goodput']:.2f}" if "goodput" in row else "-"
            counts = (str(row["offered"]), str(row["done"]), f"{row['pictures_per_s']:.2f}")
            table.add_row(name, load, *counts, *times, goodput)
    Console(width=140).print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("doors", nargs="*", help=f"default all: {', '.join(DOORS)}")
    parser.add_argument("--seconds", type=float, default=10, help="of a closed loop; open twice")
    parser.add_argument("--bundle", default="toon", help="a shipped name or a folder")
    parser.add_argument("--size", default="512*512", help="W*H (default 512*512)")
    parser.add_argument("--steps", type=int, default=28, help="denoise steps (default 28)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 is every core")
    parser.add_argument("--out", type=Path, default=RESULTS / "load-cpu.json")
    given = parser.parse_args()
    requests = [
        GenerateRequest.parse(
            {
                "prompt": "the character is waving on a beach",
                "image": str(REFERENCE),
                "size": given.size,
                "num_inference_steps": given.steps,
                "seed": seed,
            }
        )
        for seed in range(1000)
    ]
    doors = {}
    for name in given.doors or DOORS:
        with tempfile.TemporaryDirectory() as folder:
            setup = Setup(given.bundle, folder, threads=given.threads)
            doors[name] = asyncio.run(measure_door(name, setup, requests, given.seconds))
    figures = {
        "request": {"size": given.size, "num_inference_steps": given.steps},
        "seconds": given.seconds,
        "doors": doors,
    }
    show(write_result(given.out, "load", figures))


if __name__ == "__main__":
    main()
