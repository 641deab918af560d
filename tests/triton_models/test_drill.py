"""Fault drill: servers die, freeze and go away, the storage too; nothing acknowledged fails.

`DRILL_ROUNDS=20` repeats all faults that often, with three more predictions each time.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from castmate.clients.local import LocalClient
from castmate.images import Reference
from castmate.jobs.predictions import Prediction, State
from castmate.schema import GenerateRequest
from castmate.service import Castmate
from castmate.settings import Settings
from castmate.triton.server import TritonServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROUNDS = int(os.environ.get("DRILL_ROUNDS", "1"))
PREDICTIONS_A_FAULT = 3
EVENT_TIMEOUT_S = 2.0
AWAY_S = 6.0  # longer than both servers together may be silent


class Drill:
    """The faults, each of which ends by itself."""

    def __init__(self, servers: list[TritonServer], files: Path) -> None:
        self._servers, self._files = servers, files

    async def kill_one_while_it_draws(self) -> None:
        server = self._servers[0]
        os.kill(server.pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
        server.kill()  # what is left of its group
        server.start()  # from this thread: a server ends with the one that started it

    async def freeze_one(self) -> None:
        await self._away(self._servers[1:])

    async def freeze_both(self) -> None:
        await self._away(self._servers)

    async def take_the_storage_away(self) -> None:
        away = self._files.with_name("away")
        self._files.rename(away)
        try:
            await asyncio.sleep(AWAY_S)
        finally:
            away.rename(self._files)

    async def _away(self, servers: list[TritonServer]) -> None:
        try:
            for server in servers:
                os.kill(server.pid, signal.SIGSTOP)
            await asyncio.sleep(AWAY_S)
        finally:
            for server in servers:
                os.kill(server.pid, signal.SIGCONT)


async def begun(castmate: Castmate, made: list[Prediction]) -> None:
    """Wait until one of the last ones is being drawn."""
    last = {one.id for one in made[-PREDICTIONS_A_FAULT:]}
    async with asyncio.timeout(120):
        while True:
            running = await castmate.ledger.list(state=State.PROCESSING)
            if any(one.id in last for one in running):
                return
            await asyncio.sleep(0.02)


@pytest.mark.timeout(240 * ROUNDS + 60)
async def test_no_acknowledged_prediction_fails_while_a_fault_is_shorter_than_the_wait(
    start_server: Callable[..., TritonServer],
    local: LocalClient,
    make_request: Callable[..., GenerateRequest],
    character: Callable[[str], Reference],
    own_folder: Path,
) -> None:
    servers = [start_server(), start_server()]
    settings = Settings.load(
        clients="triton",
        picture_metadata=False,  # it names the client
        triton_urls=",".join(server.url for server in servers),
        triton_event_timeout_s=EVENT_TIMEOUT_S,
        data_dir=own_folder / "data",
        worker_slots=2,
        cooldown_s=1,
        wait_s=120,
    )
    drill = Drill(servers, own_folder / "data/files")
    faults = (
        drill.kill_one_while_it_draws,
        drill.freeze_one,
        drill.freeze_both,
        drill.take_the_storage_away,
    )
    async with Castmate.open(settings) as castmate:
        castmate.work()
        made: list[Prediction] = []
        for fault in faults * ROUNDS:
            for seed in range(len(made), len(made) + PREDICTIONS_A_FAULT):
                request = make_request(seed=seed, num_inference_steps=40)
                made.append(await castmate.ledger.submit(request, character("mira")))
            await begun(castmate, made)
            await fault()
        found = [await castmate.ledger.wait(one.id, 120) for one in made]
        assert {one.state for one in found} == {State.COMPLETED}, [
            (one.id, one.state, one.error, one.waits_for) for one in found
        ]
        tried = max(found, key=lambda one: one.attempt)
        assert tried.attempt > 1, "the faults were felt"
        (image,) = tried.images
        expected = await local.generate(tried.request, character("mira"))
        picture = await castmate.storage.get(image.name)
        assert picture == expected.images[0].data, "drawn elsewhere, it is the same picture"
