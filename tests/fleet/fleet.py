"""A fleet on one machine, and what can befall it."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from sqlalchemy import text

from castmate.jobs.opening import open_database
from castmate.triton.server import TritonServer
from tests.fleet.receiver import Receiver
from tests.fleet.relay import Relay
from tests.fleet.services import ACCESS, BUCKET, Gateway, object_storage, postgres

BUSY_S = 60.0
# A server ends with the thread that started it, and the relays' thread must not wait for it.
STARTER = ThreadPoolExecutor(1)


@dataclass(frozen=True)
class Plan:
    """What a fleet goes through.

    Attributes:
        events: One after the other, by what they are called.
        predictions: At least so many; more until the last event is over.
        pace_s: Between two submits.
        settle_s: After each event.
        num_tritons: How many there are in all; those that join are the last ones.
        num_joining: How many of them join later.
        lease_s: After how long what a dead gateway drew is drawn by another one.
        event_timeout_s: After how long a silent tritonserver is left.
    """

    events: Sequence[tuple[str, Event]]
    predictions: int
    pace_s: float
    settle_s: float
    num_tritons: int
    num_joining: int = 0
    lease_s: int = 15
    event_timeout_s: float = 2.0


@dataclass
class Fleet:
    """Everything that can fail.

    Attributes:
        tritons: Servers; the last ones may join later.
        gateways: On one ledger, behind the balancer.
        database: The way to PostgreSQL.
        storage: The way to the bucket.
        hooks: Who gets the webhooks.
        url: The balancer.
        database_url: For whoever looks into the ledger.
        spans: The events that were, with their begin and end on the monotonic clock.
    """

    tritons: Sequence[TritonServer]
    gateways: Sequence[Gateway]
    database: Relay
    storage: Relay
    hooks: Receiver
    url: str
    database_url: str
    spans: list[tuple[str, float, float]] = field(default_factory=list)

    async def suffer(self, plan: Plan) -> None:
        """Every event of a plan in turn."""
        for name, happens in plan.events:
            begin = time.monotonic()
            await happens(self)
            await asyncio.sleep(plan.settle_s)
            self.spans.append((name, begin, time.monotonic()))

    async def metric(self, number: int, name: str) -> float:
        """What a tritonserver's metrics page says; no gRPC here, whose threads bear no forks."""
        ports = self.tritons[number].ports
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
            page = await http.get(f"http://{ports.host}:{ports.metrics}/metrics")
        lines = page.text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[ {{]", line))

    async def until_triton_draws(self, number: int) -> None:
        """Wait until a tritonserver is in the midst of something."""
        async with asyncio.timeout(BUSY_S):
            while not await self.metric(number, "castmate_running"):
                await asyncio.sleep(0.02)

    async def until_draws(self, pid: int, expected: bool = True) -> None:
        """Wait until the gateway of a process holds a prediction, or holds none any more."""
        holding = text("select 1 from predictions where state = 'processing' and owner like :pid")
        holding = holding.bindparams(pid=f"%:{pid}:%")
        database = await open_database(self.database_url)

        async def draws() -> bool:
            return bool(await database.run(lambda tx: tx.connection.execute(holding).all()))

        try:
            async with asyncio.timeout(BUSY_S):
                while await draws() is not expected:
                    await asyncio.sleep(0.01)
        finally:
            await database.aclose()

    async def drawn_twice(self) -> list[str]:
        """Predictions with more than one finished attempt."""
        query = text(
            "select prediction_id from attempts where outcome = 'completed' "
            "group by prediction_id having count(*) > 1"
        )
        database = await open_database(self.database_url)
        try:
            return await database.run(lambda tx: [row[0] for row in tx.connection.execute(query)])
        finally:
            await database.aclose()


Event = Callable[[Fleet], Awaitable[None]]


def triton_starts(number: int) -> Event:
    """A tritonserver joins, or comes back."""

    async def happens(fleet: Fleet) -> None:
        start = fleet.tritons[number].start
        await asyncio.get_running_loop().run_in_executor(STARTER, start)

    return happens


def triton_dies(number: int) -> Event:
    """A tritonserver is killed while it draws, and stays away."""

    async def happens(fleet: Fleet) -> None:
        await fleet.until_triton_draws(number)
        server = fleet.tritons[number]
        os.kill(server.pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
        server.kill()  # what is left of its group

    return happens


def triton_freezes(number: int, seconds: float) -> Event:
    """A tritonserver stops in the midst of everything, and goes on."""

    async def happens(fleet: Fleet) -> None:
        await fleet.until_triton_draws(number)
        os.kill(fleet.tritons[number].pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(fleet.tritons[number].pid, signal.SIGCONT)

    return happens


def gateway_dies(number: int) -> Event:
    """A gateway is killed while it draws, and stays away; others take over what it drew."""

    async def happens(fleet: Fleet) -> None:
        pid = fleet.gateways[number].pid
        await fleet.until_draws(pid)
        fleet.gateways[number].kill()
        await fleet.until_draws(pid, False)

    return happens


def gateway_starts(number: int) -> Event:
    """A gateway comes back."""

    async def happens(fleet: Fleet) -> None:
        await asyncio.to_thread(fleet.gateways[number].start)

    return happens


def gateway_restarts(number: int) -> Event:
    """A gateway ends in order, as in a rolling update, and starts again."""

    async def happens(fleet: Fleet) -> None:
        assert await asyncio.to_thread(fleet.gateways[number].terminate) == 0
        await asyncio.to_thread(fleet.gateways[number].start)

    return happens


def database_is_away(seconds: float) -> Event:
    """PostgreSQL refuses connections, and those that were open end."""
    return lambda fleet: fleet.database.away(seconds)


def storage_is_away(seconds: float) -> Event:
    """The bucket refuses connections, and those that were open end."""
    return lambda fleet: fleet.storage.away(seconds)


@asynccontextmanager
async def running(
    plan: Plan, folder: Path, start_triton: Callable[[], TritonServer]
) -> AsyncIterator[Fleet]:
    """A fleet for a plan, with two gateways; everything ends with the block."""
    async with AsyncExitStack() as ends:
        tritons = [start_triton() for _ in range(plan.num_tritons)]
        for server in tritons[plan.num_tritons - plan.num_joining :]:
            server.stop()  # its address is known before it is there
        socket = ends.enter_context(postgres())
        bucket = ends.enter_context(object_storage(folder / "s3"))
        database = Relay([functools.partial(asyncio.open_unix_connection, socket)])
        storage = Relay([functools.partial(asyncio.open_connection, "127.0.0.1", bucket)])
        hooks = Receiver()
        for listening in (database, storage, hooks):
            await listening.start()
            ends.push_async_callback(listening.stop)
        settings = {
            "CASTMATE_CLIENTS": "triton",
            "CASTMATE_TRITON_URLS": ",".join(server.url for server in tritons),
            "CASTMATE_TRITON_EVENT_TIMEOUT_S": str(plan.event_timeout_s),
            "CASTMATE_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{database.port}/postgres",
            "CASTMATE_STORAGE_URL": f"s3://{BUCKET}/pictures",
            "CASTMATE_FILES_SECRET": "0123456789abcdef" * 2,
            "CASTMATE_WORKER_SLOTS": "2",
            "CASTMATE_LEASE_S": str(plan.lease_s),
            "CASTMATE_QUEUE_LIMIT": "1000",
            "CASTMATE_COOLDOWN_S": "1",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": f"http://127.0.0.1:{storage.port}",
            "AWS_ALLOW_HTTP": "true",
            **ACCESS,
            **hooks.settings,
        }
        gateways = [Gateway(folder / f"gateway-{number}", **settings) for number in (1, 2)]
        door = Relay(
            [functools.partial(asyncio.open_connection, "127.0.0.1", one.port) for one in gateways]
        )
        await door.start()
        ends.push_async_callback(door.stop)
        url = f"http://127.0.0.1:{door.port}"
        for one in gateways:
            one.settings["CASTMATE_PUBLIC_URL"] = url
        await asyncio.gather(*(asyncio.to_thread(one.start) for one in gateways))
        for one in gateways:
            ends.callback(one.kill)
        database_url = settings["CASTMATE_DATABASE_URL"]
        yield Fleet(tritons, gateways, database, storage, hooks, url, database_url)
