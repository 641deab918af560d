"""The operators' status: clients, queue, spending and step times, to the scope admin alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from castmate.errors import Unavailable
from castmate.jobs.keys import Scope
from castmate.schema import GenerateRequest, GenerateResult
from tests.doubles import FlatClient, StuckClient
from tests.mcp_server.running import serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]
PATH = "/api/v3/status"


class Timed(FlatClient):
    """Tells how long its steps took: as many milliseconds as the request's seed says."""

    async def generate(self, request: GenerateRequest, *args: Any, **kw: Any) -> GenerateResult:
        result = await super().generate(request, *args, **kw)
        timings = {"denoise": 10.0 * request.seed, "total": 10.0 * request.seed}
        return replace(result, timings_ms=timings, computed_steps=10)


async def test_an_operator_sees_clients_queue_memory_spending_and_steps(tmp_path: Path) -> None:
    async with serving(Timed(), tmp_path / "data") as api:
        for seed in (10, 10, 100):
            await api.final((await api.submit(seed=seed))["id"])
        body = await api.ask("GET", PATH)
        (client,) = body["clients"]
        assert (client["name"], client["up"], client["breaker"]) == ("flat", True, "closed")
        assert client["reason"] == ""
        assert body["queue"] == {"waiting": 0, "running": 0, "oldest_wait_s": 0, "work_s": 0}
        assert (body["memory"], body["spend"], body["keys"]) == ([], [], [])
        (times,) = body["step_times"]
        assert (times["client"], times["count"]) == ("flat", 3)
        assert (times["median_ms"], times["p95_ms"]) == (10, 100)
        assert [one["count"] for one in times["histogram"]] == [2, 1]
        assert [10 <= times["histogram"][0]["up_to_ms"] < 12] == [True]


async def test_what_waits_and_why_nobody_draws_is_told(tmp_path: Path) -> None:
    error = Unavailable("/home/ann/models/flux is away.")
    async with serving(FlatClient(error), tmp_path / "data") as api:
        await api.submit()
        await api.gateway.castmate.ledger.wait((await api.submit(seed=9))["id"], 0.5)
        body = await api.ask("GET", PATH)
        assert body["queue"]["waiting"] + body["queue"]["running"] == 2
        assert body["clients"][0]["reason"] == "flux is away."


async def test_only_the_scope_admin_sees_it_and_no_secret_is_in_it(tmp_path: Path) -> None:
    async with serving(StuckClient(), tmp_path / "data", gpu_memory="16GB") as api:
        reader = await api.key("ann", scopes=[Scope.GENERATE, Scope.READ, Scope.METRICS])
        admin = await api.key("ops", scopes=[Scope.ADMIN])
        refused = await api.ask("GET", PATH, 403, headers=reader)
        assert "no scope 'admin'" in refused["message"]
        await api.gateway.castmate.keys.revoke("ann")
        body = await api.ask("GET", PATH, headers=admin)
        ann, ops = body["keys"]
        assert (ann["name"], "revoked_at" in ann) == ("ann", True)
        assert (ops["scopes"], "revoked_at" in ops) == (["admin"], False)
        assert all(plan["fits"] or plan["reason"] for plan in body["memory"])
        assert body["memory"][0]["title"].endswith("(not exported)")
        assert admin["authorization"].removeprefix("Bearer ") not in str(body)
        await api.ask("POST", "/api/v3/predictions", 403, json={}, headers=admin)
