"""What agents wait for besides drawing: the server's start, one call, eight views at once.

Run it with `python -m benchmarks.agents`. `benchmarks.latency` measures the drawing itself.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

from benchmarks.record import RESULTS
from castmate.engines.bundle import locate
from export.environment import write_result

_CONCURRENT = 8


def server(folder: Path) -> StdioServerParameters:
    """The installed server, with its own data folder."""
    references = str(locate("toon") / "references")
    arguments = ["-m", "castmate_mcp", "--data-dir", str(folder), "--image-root", references]
    return StdioServerParameters(command=sys.executable, args=arguments)


async def time_start(folder: Path) -> float:
    """Milliseconds from starting the process to the first list of tools, over stdio."""
    began = time.perf_counter()
    async with Client(server(folder)) as client:
        await client.list_tools()
        return (time.perf_counter() - began) * 1000


async def times(count: int, call: Callable[[], Awaitable[Any]]) -> list[float]:
    """Milliseconds for each of `count` calls, one after the other."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        await call()
        found.append((time.perf_counter() - began) * 1000)
    return found


async def views_at_once(client: Client, image_id: str, count: int) -> tuple[list[float], float]:
    """Milliseconds for each view while eight run at once, and views per second."""

    async def view() -> None:
        result = await client.call_tool("view_image", {"image_id": image_id})
        assert not result.is_error, result.content

    await view()  # makes the preview
    began = time.perf_counter()
    found = await asyncio.gather(*(times(count, view) for _ in range(_CONCURRENT)))
    seconds = time.perf_counter() - began
    return [one for many in found for one in many], count * _CONCURRENT / seconds


async def measure(starts: int, calls: int) -> dict[str, Any]:
    """Measure everything on this machine."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = [await time_start(folder) for _ in range(starts)]
        async with Client(server(folder)) as client:
            arguments = {"prompt": "waving", "image": "mira.png", "size": "512*512", "seed": 7}
            drawn = await client.call_tool("generate_character_image", arguments)
            assert isinstance(drawn.structured_content, dict), drawn.content
            job_id = drawn.structured_content["job_id"]
            image_id = drawn.structured_content["images"][0]["image_id"]
            status = await times(calls, lambda: client.call_tool("get_status", {}))
            found = await times(calls, lambda: client.call_tool("get_job", {"job_id": job_id}))
            views, per_second = await views_at_once(client, image_id, max(1, calls // _CONCURRENT))
    return {
        "start_to_tools_ms": summary(started),
        "get_status_ms": summary(status),
        "get_job_with_picture_ms": summary(found),
        "view_image_8_at_once_ms": summary(views),
        "view_image_8_at_once_per_s": round(per_second, 1),
    }


def summary(found: list[float]) -> dict[str, float]:
    """Count, median, minimum and maximum."""
    return {
        "count": len(found),
        "p50": round(statistics.median(found), 2),
        "min": round(min(found), 2),
        "max": round(max(found), 2),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS / "agents.json")
    options = parser.parse_args()
    found = asyncio.run(measure(options.starts, options.calls))
    write_result(options.out, "agents", {"times": found})
    for name, values in found.items():
        print(f"{name:<28} {values}")


if __name__ == "__main__":
    main()
