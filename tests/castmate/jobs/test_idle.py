"""What a gateway costs its database while nobody asks for anything."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Engine, event

from castmate.jobs.postgres import LOOK_S
from castmate.service import Castmate
from castmate_mcp.http.gateway import Gateway
from castmate_mcp.rest.webhooks import Courier
from castmate_mcp.settings import ServerSettings
from tests.castmate.jobs.conftest import empty
from tests.doubles import FlatClient, routed

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

LEASE_S = 1.5
BEATS = 4
PER_LOOK = 2  # statements, when everyone looks whether a notification was lost


async def test_it_is_less_than_a_statement_a_second(postgres_url: str) -> None:
    await empty(postgres_url)
    settings = ServerSettings.load(database_url=postgres_url, lease_s=LEASE_S)
    sent: list[str] = []

    def keep(connection: object, cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    async with Castmate.open(settings, router=routed(FlatClient())) as castmate:
        castmate.work()
        courier = asyncio.create_task(Courier(Gateway(castmate)).run())
        await asyncio.sleep(LEASE_S)  # what it does at its start
        event.listen(Engine, "before_cursor_execute", keep)
        try:
            await asyncio.sleep(BEATS * LEASE_S / 3)
        finally:
            event.remove(Engine, "before_cursor_execute", keep)
            courier.cancel()
    beat_s = ServerSettings.model_fields["lease_s"].default / 3
    a_second = len(sent) / (BEATS - 1) / beat_s + PER_LOOK / LOOK_S
    assert sent, "it looks for work of the dead"
    assert a_second < 1, "\n".join(sent)
