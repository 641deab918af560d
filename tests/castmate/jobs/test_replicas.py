"""What a fleet of servers needs of the ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from sqlalchemy import text

from castmate.errors import InvalidRequest
from castmate.jobs.keys import Key, KeyRing
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from tests.castmate.jobs.conftest import Submit


@pytest.mark.anyio
async def test_ten_replicas_that_bring_the_same_key_make_it_once(database_url: str) -> None:
    secret = "wsk_" + "a1" * 16

    async def replica() -> Key:
        database = await open_database(database_url)
        try:
            return (await KeyRing(database).create("ann", secret=secret))[0]
        finally:
            await database.aclose()

    made = await asyncio.gather(*(replica() for _ in range(10)))
    assert len({key.created for key in made}) == 1
    database = await open_database(database_url)
    ring = KeyRing(database)
    assert await ring.find(secret) == made[0]
    with pytest.raises(InvalidRequest, match="there is, or was, a key 'ann'"):
        await ring.create("ann", secret="wsk_" + "b2" * 16)
    with pytest.raises(InvalidRequest, match="wsk_ and 32 to 128 random letters and digits"):
        await ring.create("bob", secret="wsk_short")
    await database.aclose()


@pytest.mark.anyio
async def test_what_a_fleet_is_scaled_by_is_what_the_ledger_counts(
    ledger: Ledger, submit: Submit
) -> None:
    manifests = Path(__file__).parents[3] / "deploy/kubernetes/overlays/fleet/scaling.yaml"
    (scaled, *_) = yaml.safe_load_all(manifests.read_text())
    (trigger, _) = scaled["spec"]["triggers"]
    for _ in range(3):
        await submit()
    query = text(trigger["metadata"]["query"])
    counted = await ledger.database.run(lambda tx: tx.connection.execute(query).scalar_one())
    backlog = await ledger.backlog()
    assert counted == backlog.waiting + backlog.running == 3
