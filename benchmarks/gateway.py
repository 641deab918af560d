"""The server under load, on SQLite: `python -m benchmarks.gateway`.

First its capacity: submits a second and their latency at 16 connections, while nothing draws. Then
an overload: for a minute, ten times as many submits as it can draw, evenly spread, without retries.
Accepted predictions must finish, the rest must get 429, and memory must stay flat.

The load comes from the same machine and shares its cores, so the figures are lower bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks.ledger import summarize
from benchmarks.server_process import ServerProcess, castmate_serve
from export.environment import write_result

RESULTS: Final = Path(__file__).parent / "results"
REFERENCE: Final = Path(__file__).parent.parent / "castmate/bundles/toon/references/mira.png"
MODEL: Final = "/api/v3/wavespeed-ai/instant-character"
CONNECTIONS: Final = 16
WARM_UPS: Final = 100
OVERLOAD: Final = 10
QUEUE_LIMIT: Final = 16
CAPACITY_RUNS: Final = 12
FINISH_S: Final = 600.0
REQUEST: Final = {"prompt": "waving", "size": "512*512", "num_inference_steps": 4}


def rss_mib(pid: int) -> float:
    """A process's resident memory, from Linux's /proc."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


class Connection:
    """One HTTP/1.1 connection; a client library would cost more than the server."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: str = ""
    ) -> None:
        self._reader, self._writer = reader, writer
        self._authorization = f"authorization: Bearer {secret}\r\n" if secret else ""

    async def ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> Any:
        """The status and the JSON of an answer."""
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n"
        head += f"{self._authorization}content-type: {kind or 'application/json'}\r\n\r\n"
        self._writer.write(head.encode() + body)
        await self._writer.drain()
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(re.findall(rb"content-length: (\d+)", answer)[0])
        return int(answer.split()[1]), json.loads(await self._reader.readexactly(length))


@asynccontextmanager
async def connected(server: ServerProcess, secret: str = "") -> AsyncIterator[Connection]:
    """A connection that ends with the block; with the secret of a key where there are keys."""
    parts = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Connection(reader, writer, secret)
    finally:
        writer.close()


async def upload(connection: Connection) -> str:
    """Upload the reference and return its URL."""
    start = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    body = start + REFERENCE.read_bytes() + b"\r\n--x--\r\n"
    path = "/api/v3/media/upload/binary"
    _, answer = await connection.ask("POST", path, body, "multipart/form-data; boundary=x")
    return str(answer["data"]["download_url"])


def bodies(image: str) -> Iterator[bytes]:
    """Requests that differ only in their seed."""
    for seed in itertools.count():
        yield json.dumps(REQUEST | {"image": image, "seed": seed}).encode()


async def submits(server: ServerProcess, runs: int) -> dict[str, Any]:
    """Submit as fast as the connections allow, one request at a time on each."""
    seconds: list[float] = []
    statuses: Counter[int] = Counter()
    async with connected(server) as first:
        requests = bodies(await upload(first))
        left = iter(range(WARM_UPS + runs))

        async def caller() -> None:
            async with connected(server) as connection:
                for number in left:
                    begin = time.perf_counter()
                    status, _ = await connection.ask("POST", MODEL, next(requests))
                    if number >= WARM_UPS:
                        seconds.append(time.perf_counter() - begin)
                        statuses[status] += 1

        begin = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
        taken = time.perf_counter() - begin
    return {
        "submits_per_s": round((WARM_UPS + runs) / taken),
        "latency_ms": summarize(seconds),
        "statuses": {str(status): count for status, count in statuses.items()},
    }


@dataclass
class Load:
    """What happened in an overload.

    Attributes:
        statuses: Number of submits by HTTP status.
        seconds: Time from each submit to its response.
        admitted: The ids of accepted predictions.
        rss_mib: The server's memory, sampled once a second.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    admitted: list[str] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)


async def capacity(connection: Connection, requests: Iterator[bytes]) -> float:
    """Pictures a second while the queue is never empty."""
    names = []
    for _ in range(CAPACITY_RUNS):
        _, answer = await connection.ask("POST", MODEL, next(requests))
        names.append(answer["data"]["id"])
    drawn = [await finished(connection, name) for name in names]
    return CAPACITY_RUNS / (sum(data["executionTime"] for data in drawn) / 1000)


async def finished(connection: Connection, name: str) -> Any:
    """A prediction once it is final."""
    ends = time.monotonic() + FINISH_S
    while time.monotonic() < ends:
        _, answer = await connection.ask("GET", f"/api/v3/predictions/{name}/result")
        if answer["data"]["status"] not in ("created", "processing"):
            return answer["data"]
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{name} did not finish")


async def overload(server: ServerProcess, seconds: float) -> dict[str, Any]:
    """Submit ten times what it can draw, for a while."""
    load = Load()
    async with connected(server) as first:
        requests = bodies(await upload(first))
        per_s = await capacity(first, requests)
        every_s = 1 / (OVERLOAD * per_s)
        free = asyncio.Queue[Connection]()

        async def one(connection: Connection) -> None:
            begin = time.perf_counter()
            status, answer = await connection.ask("POST", MODEL, next(requests))
            load.seconds.append(time.perf_counter() - begin)
            load.statuses[status] += 1
            if status == 200:
                load.admitted.append(answer["data"]["id"])
            free.put_nowait(connection)

        async def watch() -> None:
            while True:
                load.rss_mib.append(rss_mib(server.pid))
                await asyncio.sleep(1)

        watching, running = asyncio.create_task(watch()), set()
        async with connections(server, free):
            begin = time.monotonic()
            for number in itertools.count():
                due = begin + number * every_s
                if due > begin + seconds:
                    break
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                task = asyncio.create_task(one(await free.get()))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.gather(*running)
            offered_s = time.monotonic() - begin
            async with connected(server) as last:  # the first connection was idle for too long
                ends = [(await finished(last, name))["status"] for name in load.admitted]
        watching.cancel()
    return {
        "drawn_per_s": round(per_s, 2),
        "offered_per_s": round(sum(load.statuses.values()) / offered_s, 2),
        "seconds": seconds,
        "statuses": {str(status): count for status, count in sorted(load.statuses.items())},
        "admitted": dict(Counter(ends)),
        "latency_ms": summarize(load.seconds),
        "rss_mib": {
            "start": round(load.rss_mib[0]),
            "max": round(max(load.rss_mib)),
            "end": round(load.rss_mib[-1]),
        },
    }


@asynccontextmanager
async def connections(
    server: ServerProcess, free: asyncio.Queue[Connection]
) -> AsyncIterator[None]:
    """Enough connections that no request waits for one unless responses are slow."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4 * CONNECTIONS):
            free.put_nowait(await stack.enter_async_context(connected(server)))
        yield


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--runs", type=int, default=3000, help="counted submits (default 3000)")
    parser.add_argument("--seconds", type=float, default=60, help="of overload (default 60)")
    parser.add_argument("--out", type=Path, default=RESULTS / "gateway.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"CASTMATE_WORKER_SLOTS": "0", "CASTMATE_QUEUE_LIMIT": "10000"}
        with castmate_serve(Path(folder), **settings) as server:
            taken = asyncio.run(submits(server, options.runs))
    with tempfile.TemporaryDirectory() as folder:
        settings = {"CASTMATE_CLIENTS": "local", "CASTMATE_QUEUE_LIMIT": str(QUEUE_LIMIT)}
        with castmate_serve(Path(folder), **settings) as server:
            loaded = asyncio.run(overload(server, options.seconds))
    figures = {
        "connections": CONNECTIONS,
        "runs": options.runs,
        "request": REQUEST,
        "queue_limit": QUEUE_LIMIT,
        "submits": taken,
        "overload": loaded,
    }
    show(write_result(options.out, "gateway", figures))


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    taken, loaded = report["submits"], report["overload"]
    table = Table(title=f"castmate serve on SQLite, {report['environment']['cpu']}")
    table.add_column("what")
    table.add_column("figure", justify="right")
    latency, slow = taken["latency_ms"], loaded["latency_ms"]
    for what, figure in (
        (f"submits/s at {report['connections']} connections", taken["submits_per_s"]),
        ("submit, p50 / p99 ms", f"{latency['p50']:.1f} / {latency['p99']:.1f}"),
        ("drawn/s", loaded["drawn_per_s"]),
        (f"offered/s, for {loaded['seconds']:g} s", loaded["offered_per_s"]),
        ("answers", loaded["statuses"]),
        ("admitted ended", loaded["admitted"]),
        ("answer under overload, p50 / p99 ms", f"{slow['p50']:.1f} / {slow['p99']:.1f}"),
        ("memory, MiB", loaded["rss_mib"]),
    ):
        table.add_row(what, str(figure))
    Console().print(table)


if __name__ == "__main__":
    main()
