"""Three keys submit, fifty callers poll, for minutes: `python -m benchmarks.polling`.

The predictions of each key are submitted at once; one worker draws them while the pollers read
them, as WaveSpeed's clients do. Accepted predictions must finish, no poll may fail, keys must get
their turns, and memory must stay flat.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.gateway import MODEL, REQUEST, RESULTS, connected, finished, rss_mib, upload
from benchmarks.ledger import summarize
from benchmarks.server_process import ServerProcess, castmate_serve, create_key
from export.environment import write_result

KEYS: Final = ("ann", "bob", "eve")
SUBMISSIONS: Final = 64
POLLERS: Final = 50
PAUSE_S: Final = 0.1  # between two looks of one caller


async def polled(server: ServerProcess, secrets: dict[str, str], seconds: float) -> dict[str, Any]:
    """Submit, and look for so long."""
    looks: list[float] = []
    statuses: Counter[int] = Counter()
    memory: list[float] = []
    ids: list[tuple[str, str]] = []
    async with AsyncExitStack() as stack:
        of_key = {
            key: await stack.enter_async_context(connected(server, secret))
            for key, secret in secrets.items()
        }
        images = {key: await upload(connection) for key, connection in of_key.items()}
        for number, key in zip(range(SUBMISSIONS), itertools.cycle(KEYS), strict=False):
            body = json.dumps(REQUEST | {"image": images[key], "seed": number}).encode()
            status, answer = await of_key[key].ask("POST", MODEL, body)
            if status != 200:
                raise RuntimeError(f"a submission of {key} got {status}: {answer['message']}")
            ids.append((key, answer["data"]["id"]))
        ends = time.monotonic() + seconds

        async def poller(number: int) -> None:
            choose = random.Random(number)
            key = KEYS[number % len(KEYS)]
            own = [name for owner, name in ids if owner == key]
            async with connected(server, secrets[key]) as connection:
                while time.monotonic() < ends:
                    begin = time.perf_counter()
                    path = f"/api/v3/predictions/{choose.choice(own)}/result"
                    status, _ = await connection.ask("GET", path)
                    looks.append(time.perf_counter() - begin)
                    statuses[status] += 1
                    if number == 0:
                        memory.append(rss_mib(server.pid))
                    await asyncio.sleep(PAUSE_S)

        await asyncio.gather(*(poller(number) for number in range(POLLERS)))
        outcomes: Counter[str] = Counter()
        completed: Counter[str] = Counter()
        for key, name in ids:
            async with connected(server, secrets[key]) as connection:
                data = await finished(connection, name)
            outcomes[data["status"]] += 1
            completed[key] += data["status"] == "completed"
    return {
        "seconds": seconds,
        "looks_per_s": round(len(looks) / seconds, 1),
        "latency_ms": summarize(looks),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "ended": dict(outcomes),
        "completed_of_key": dict(completed),
        "rss_mib": {
            "start": round(memory[0]),
            "quarters": [round(memory[len(memory) * part // 4 - 1]) for part in range(1, 5)],
            "max": round(max(memory)),
        },
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="of polling (default 300)")
    parser.add_argument("--out", type=Path, default=RESULTS / "polling.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        secrets = {key: create_key(folder, key, "--per-minute", "0") for key in KEYS}
        with castmate_serve(folder, CASTMATE_CLIENTS="local") as server:
            figures = asyncio.run(polled(server, secrets, options.seconds))
    figures |= {"submissions": SUBMISSIONS, "keys": len(KEYS), "pollers": POLLERS}
    show(write_result(options.out, "polling", figures | {"request": REQUEST}))


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(title=f"{report['pollers']} pollers, {report['environment']['cpu']}")
    table.add_column("what")
    table.add_column("figure", justify="right")
    latency = report["latency_ms"]
    for what, figure in (
        (f"looks/s, for {report['seconds']:g} s", report["looks_per_s"]),
        ("look, p50 / p99 ms", f"{latency['p50']:.1f} / {latency['p99']:.1f}"),
        ("answers", report["statuses"]),
        (f"{report['submissions']} submissions ended", report["ended"]),
        ("by key", report["completed_of_key"]),
        ("memory, MiB", report["rss_mib"]),
    ):
        table.add_row(what, str(figure))
    Console().print(table)


if __name__ == "__main__":
    main()
