"""/metrics: what a fleet is scaled and watched by."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from castmate.clients.base import Servers
from castmate.errors import Unavailable
from castmate.schema import GenerateResult
from tests.doubles import FlatClient, StuckClient
from tests.mcp_server.running import Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]


async def samples(api: Api) -> dict[str, float]:
    """Of one look at the page, by name and labels."""
    answer = await api.http.get("/metrics")
    assert answer.status_code == 200
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_it_says_what_waits_what_runs_and_how_much_work_that_is(tmp_path: Path) -> None:
    async with serving(StuckClient(), tmp_path / "data", worker_slots=2) as api:
        for seed in range(5):
            await api.submit(seed=seed)
        ledger = api.gateway.castmate.ledger
        async with asyncio.timeout(10):
            while (await ledger.backlog()).running < 2:
                await asyncio.sleep(0)
        seen = await samples(api)
        assert seen["castmate_ledger_up"] == 1
        assert seen["castmate_ledger_predictions created"] == 3
        assert seen["castmate_ledger_predictions processing"] == 2
        assert 0 < seen["castmate_ledger_oldest_wait_seconds"] < 60
        assert seen["castmate_ledger_work_seconds"] == 5, "a second each, before any is finished"
        assert seen["castmate_worker_slots"] == seen["castmate_worker_running"] == 2


async def test_the_work_is_estimated_by_what_the_last_ones_took_to_draw(tmp_path: Path) -> None:
    class Slow(FlatClient):
        """Says that a picture took 4 s, 1 s of which it waited in Triton's queue."""

        async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
            result = await super().generate(*args, **kwargs)
            return replace(result, timings_ms={"queue": 1000.0, "total": 4000.0})

    async with serving(Slow(), tmp_path / "data") as api:
        await api.final((await api.submit())["id"])
        ledger = api.gateway.castmate.ledger
        assert (await ledger.backlog()).drawing_s == 3
        assert (await samples(api))["castmate_ledger_work_seconds"] == 0
        assert (await samples(api))["castmate_attempts_total flat completed"] == 1


async def test_while_the_ledger_is_away_the_rest_is_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:

        async def away() -> None:
            raise Unavailable("The ledger's database cannot be reached.")

        monkeypatch.setattr(api.gateway.castmate.ledger, "backlog", away)
        seen = await samples(api)
        assert seen["castmate_ledger_up"] == 0
        assert not any(name.startswith("castmate_ledger_predictions") for name in seen)
        assert seen["castmate_worker_slots"] == 1


async def test_the_servers_of_a_client_are_counted(tmp_path: Path) -> None:
    class Fleet(FlatClient):
        servers = Servers(usable=3, resting=1, ahead=7)

    async with serving(Fleet(), tmp_path / "data") as api:
        await api.gateway.castmate.router.open()
        seen = await samples(api)
        assert seen["castmate_client_servers flat usable"] == 3
        assert seen["castmate_client_servers flat resting"] == 1
        assert seen["castmate_client_ahead flat"] == 7
