"""Many requests in a row to one server: nothing grows. `make soak` sends 500."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from castmate.clients.triton.client import TritonClient
from castmate.errors import ImageRejected
from castmate.images import Reference
from castmate.schema import GenerateRequest
from castmate.triton.server import TritonServer

MakeRequest = Callable[..., GenerateRequest]
Character = Callable[[str], Reference]

NUM_REQUESTS = int(os.environ.get("CASTMATE_SOAK_REQUESTS", "30"))
WARM_UP = 20  # allocators, caches and shared memory reach their size
LOOKS = 20
MIB = 2**20

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.usefixtures("one_loop"),
]


@dataclass(frozen=True)
class Footprint:
    """What the server and its model hold."""

    rss_bytes: int
    shm_bytes: int
    num_files: int
    num_threads: int

    @classmethod
    def of(cls, server: TritonServer) -> Footprint:
        group = [
            path.parent
            for path in Path("/proc").glob("[0-9]*/stat")
            if path.read_text().rpartition(")")[2].split()[2] == str(server.pid)
        ]
        status = [(folder / "status").read_text() for folder in group]
        return cls(
            1024 * sum(int(number(text, "VmRSS")) for text in status),
            sum(path.stat().st_blocks * 512 for path in server.shared_memory),
            sum(len(list((folder / "fd").iterdir())) for folder in group),
            sum(int(number(text, "Threads")) for text in status),
        )


def number(status: str, name: str) -> str:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    assert found
    return found[1]


def halves(seen: list[Footprint]) -> tuple[list[Footprint], list[Footprint]]:
    middle = len(seen) // 2
    return seen[:middle], seen[middle:]


async def test_many_requests_leave_memory_shared_memory_and_files_as_they_were(
    client: TritonClient, server: TritonServer, make_request: MakeRequest, character: Character
) -> None:
    """One in ten is bad and one in ten is cancelled: their ends must not leak either."""
    bad = dataclasses.replace(character("mira"), data=b"no picture")

    async def one(index: int) -> None:
        request = make_request(num_inference_steps=1, seed=index, enable_safety_checker=False)
        if index % 10 == 3:
            with pytest.raises(ImageRejected):
                await client.generate(request, bad)
        elif index % 10 == 7:
            begun = asyncio.Event()
            task = asyncio.create_task(
                client.generate(request, character("pim"), lambda progress: begun.set())
            )
            await asyncio.wait_for(begun.wait(), 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await client.generate(request, character("mira"))

    for index in range(WARM_UP):
        await one(index)
    seen = [Footprint.of(server)]
    for index in range(WARM_UP, WARM_UP + NUM_REQUESTS):
        await one(index)
        if (index - WARM_UP + 1) % max(NUM_REQUESTS // LOOKS, 1) == 0:
            seen.append(Footprint.of(server))
            print(f"{index - WARM_UP + 1} requests: {seen[-1]}")
    before, after = seen[0], seen[-1]
    # The allocator's memory goes up and down by as much as this; only a trend would be a leak.
    early, late = (max(one.rss_bytes for one in half) for half in halves(seen))
    assert late - early < (4 if NUM_REQUESTS >= 300 else 16) * MIB
    assert after.shm_bytes <= before.shm_bytes + MIB
    assert after.num_files <= before.num_files + 2
    assert after.num_threads <= before.num_threads + 1
