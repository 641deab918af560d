"""A process that makes predictions with the hosted client until it is killed."""

from __future__ import annotations

import asyncio
import sys

from castmate.clients.wavespeed.client import WaveSpeedClient
from castmate.fetch import PinnedBackend
from castmate.service import Castmate
from castmate.settings import Settings
from tests.doubles import routed
from tests.fakes.http import PUBLIC, Tunnel
from tests.fakes.wavespeed import KEY


async def public(host: str, port: int) -> list[str]:
    return [PUBLIC]


async def hurry(seconds: float) -> None:
    """Polls are seconds apart, and a test has none to lose."""
    await asyncio.sleep(seconds / 20)


async def main(database_url: str, data_dir: str, port: int) -> None:
    settings = Settings.load(
        database_url=database_url,
        data_dir=data_dir,
        lease_s=1,
        worker_slots=4,
        wavespeed_api_key=KEY,
        wavespeed_base_url=f"http://127.0.0.1:{port}",
        wavespeed_per_minute=10_000,
        allow_http=True,
        max_usd_per_day=100,
        wait_s=1,  # a service that stays down is to end a prediction within the test
    )
    backend = PinnedBackend(public, Tunnel(port))
    client = WaveSpeedClient(settings, sleep=hurry, submit_timeout_s=1, backend=backend)
    async with Castmate.open(settings, router=routed(client, cooldown_s=0.2)) as castmate:
        castmate.work()
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
