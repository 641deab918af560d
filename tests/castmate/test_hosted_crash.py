"""Processes that pay are killed at random, and the hosted service counts at the wire."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from castmate.clients.payments import PaymentState
from castmate.images import Reference
from castmate.schema import GenerateRequest
from castmate.service import Castmate
from castmate.settings import Settings
from tests.doubles import picture
from tests.fakes.wavespeed import FakeWaveSpeed

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

PROMPTS = ("waving", "running", "POLL503", "LOST", "FAILED", "SUBMIT503", "waving POLLNULL")


@contextlib.asynccontextmanager
async def mortal(count: int, seconds: float, *arguments: str) -> AsyncIterator[list[int]]:
    """Workers of which one is killed again and again, and replaced; yields the ids of the dead."""
    killed: list[int] = []
    living: list[asyncio.subprocess.Process] = []

    async def start() -> None:
        command = [sys.executable, "-m", "tests.fakes.hosted_worker", *arguments]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE
        )
        living.append(process)
        assert process.stdout
        assert await process.stdout.readline() == b"working\n"

    async def reap() -> None:
        chance = random.Random(7)
        while True:
            await asyncio.sleep(chance.uniform(0.2, 1.0) * seconds)
            process = living.pop(0)
            process.kill()
            killed.append(process.pid)
            await process.wait()
            await start()

    for _ in range(count):
        await start()
    reaper = asyncio.create_task(reap())
    try:
        yield killed
    finally:
        reaper.cancel()
        await asyncio.gather(reaper, return_exceptions=True)
        for process in living:
            process.kill()
            await process.wait()


@pytest.mark.slow
async def test_however_often_a_paying_process_is_killed_no_picture_is_paid_twice(
    tmp_path: Path,
) -> None:
    fake = FakeWaveSpeed()
    url, data = f"sqlite:///{tmp_path / 'ledger.sqlite3'}", str(tmp_path / "data")
    settings = Settings.load(database_url=url, data_dir=data, max_usd_per_day=100)
    reference = Reference.from_bytes(picture((64, 64)), "fox.png")
    with anyio.fail_after(100):
        async with (
            Castmate.open(settings) as castmate,
            fake.running() as port,
            mortal(2, 1.0, url, data, str(port)) as killed,
        ):
            ids = []
            for seed in range(42):
                values = {"prompt": PROMPTS[seed % len(PROMPTS)], "image": "-", "seed": seed}
                request = GenerateRequest.parse(values | {"size": "512*512"})
                ids.append((await castmate.ledger.submit(request, reference)).id)
            ended = [await castmate.ledger.wait(name, 90) for name in ids]
            spent = await castmate.budget.spending()
    paid = collections.Counter(p["inputs"]["seed"] for p in fake.predictions.values())
    assert killed
    assert set(paid.values()) == {1}, "a picture was paid twice"
    for seed, prediction in enumerate(ended):
        assert prediction.state in ("completed", "failed")
        assert (prediction.state == "completed") == (prediction.result is not None)
        if prediction.state == "completed":
            assert paid[seed] == 1
        else:
            assert prediction.error
    counted = [one for one in spent if one.payment.state is not PaymentState.RELEASED]
    assert len(counted) >= len(paid), "what is charged counts against the caps"
