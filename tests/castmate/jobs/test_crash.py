"""Real processes are killed and frozen while clients submit: nothing is lost or paid twice.

`make crash` runs it for minutes; CRASH_SECONDS says how long processes are killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from castmate.clients.payments import PaymentState
from castmate.jobs.budget import Budget
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from castmate.jobs.predictions import Outcome, Prediction, State
from castmate.jobs.storage import Storage
from tests.castmate.jobs.conftest import freeze

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[3]
KILLING_S = float(os.environ.get("CRASH_SECONDS", "4"))
NODES, CLIENTS, LEASE_S = 3, 6, 1.0


class Hosted:
    """The paid API at the wire: counts every submission, whoever sent it."""

    def __init__(self) -> None:
        self.submissions: Counter[str] = Counter()
        self.polls = asyncio.Event()
        self.done = asyncio.Event()
        self.done.set()
        self.delay_s = 0.0
        self.url = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Hosted]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = "http://{}:{}".format(*server.sockets[0].getsockname())
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                what, tag = head.split()[1].split("/")[1:]
                if what == "submit":
                    self.submissions[tag] += 1  # charged before the reply, as the real one does
                    await asyncio.sleep(random.random() * self.delay_s)
                    body = f"remote-{tag}"
                else:
                    self.polls.set()
                    body = "completed" if self.done.is_set() else "processing"
                writer.write(
                    f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
                )
                await writer.drain()
        writer.close()


@dataclass
class Node:
    """One process and the submits that wait for its acknowledgement."""

    process: asyncio.subprocess.Process
    waiting: dict[str, asyncio.Future[str]] = field(default_factory=dict)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[str] = field(default_factory=list)
    readers: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def start(cls, *arguments: str) -> Node:
        command = [sys.executable, "-m", "tests.castmate.jobs.node", *arguments, str(LEASE_S)]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe
        )
        node = cls(process)
        node.readers = [asyncio.create_task(node._read()), asyncio.create_task(node._listen())]
        return node

    async def submit(self, key: str) -> str | None:
        """The id, or None where the process died or did not answer."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.waiting[key] = answer
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(f"{key}\n".encode())
            async with asyncio.timeout(10):
                return await answer
        except (ConnectionError, TimeoutError):
            return None

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.process.wait()
        await asyncio.gather(*self.readers)
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def logged(self, words: str) -> None:
        async with asyncio.timeout(20):
            while not any(words in line for line in self.log):
                await asyncio.sleep(0.02)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            word, *rest = line.decode().split(maxsplit=2)
            if word == "ready":
                self.ready.set()
            elif word == "acknowledged" and not self.waiting[rest[0]].done():
                self.waiting[rest[0]].set_result(rest[1].strip())
            elif word == "refused":
                self.log.append(line.decode())
        for answer in self.waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionError())
                answer.exception()  # a client that gave up does not look at it

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode())


StartNode = Callable[[], Awaitable[Node]]


@pytest.fixture
async def hosted() -> AsyncIterator[Hosted]:
    async with Hosted().serving() as serving:
        yield serving


@pytest.fixture
async def start_node(hosted: Hosted, database_url: str, tmp_path: Path) -> AsyncIterator[StartNode]:
    """Starts processes, none of which outlives the test."""
    nodes: list[Node] = []

    async def call() -> Node:
        nodes.append(await Node.start(database_url, str(tmp_path), hosted.url))
        return nodes[-1]

    yield call
    for node in nodes:
        await node.kill()


@pytest.fixture
async def observer(database_url: str, tmp_path: Path) -> AsyncIterator[Ledger]:
    """The test's own look at the ledger."""
    database = await open_database(database_url)
    yield Ledger(database, Storage.open(None, tmp_path))
    await database.aclose()


async def final(observer: Ledger, ids: set[str]) -> list[Prediction]:
    async with asyncio.timeout(60):
        return list(await asyncio.gather(*(observer.wait(id) for id in sorted(ids))))


async def test_processes_killed_at_random_lose_nothing_and_pay_nothing_twice(
    hosted: Hosted, observer: Ledger, start_node: StartNode
) -> None:
    hosted.delay_s = 0.05
    nodes = [await start_node() for _ in range(NODES)]
    acknowledged: dict[str, str] = {}
    seeds, stop = itertools.count(0, 10), asyncio.Event()
    kills = 0

    def anyone() -> Node:
        return random.choice([node for node in nodes if node.ready.is_set()] or nodes)

    async def client() -> None:
        """Submits one after the other, each until it is acknowledged."""
        while not stop.is_set():
            key = f"{next(seeds)}-{random.choice((1, 1, 2))}"
            while key not in acknowledged:
                if found := await anyone().submit(key):
                    acknowledged[key] = found
                await asyncio.sleep(0.01)
            again = await anyone().submit(key)
            assert again in (None, acknowledged[key])

    await asyncio.wait_for(asyncio.gather(*(node.ready.wait() for node in nodes)), 60)
    clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
    loop = asyncio.get_running_loop()
    end = loop.time() + KILLING_S
    while loop.time() < end or kills < 3:
        await asyncio.sleep(random.uniform(0.2, 0.7))
        up = [number for number, node in enumerate(nodes) if node.ready.is_set()]
        if not up:
            continue
        victim = random.choice(up)
        await nodes[victim].kill()
        kills += 1
        nodes[victim] = await start_node()
    stop.set()
    await asyncio.wait_for(asyncio.gather(*clients), 60)

    found = await final(observer, set(acknowledged.values()))
    every = await observer.list(limit=100_000)
    await final(observer, {prediction.id for prediction in every})
    for node in nodes:
        await node.kill()  # so that nothing changes any more
    states = Counter((one.state, (one.error or {}).get("code")) for one in found)
    print(f"{kills} kills, {len(acknowledged)} acknowledged, {len(every)} in the ledger: {states}")
    print(f"attempts: {Counter(one.attempt for one in found)}")
    assert len(acknowledged) > CLIENTS
    assert len(set(acknowledged.values())) == len(acknowledged)  # one id for each key
    assert {one.request.seed for one in found} == {int(k.split("-")[0]) for k in acknowledged}
    assert len({one.request.seed for one in every}) == len(every)  # no key became two
    await check_results(observer, found)
    assert max(hosted.submissions.values()) == 1  # at the wire
    await check_payments(observer, every, hosted)


async def check_results(observer: Ledger, found: list[Prediction]) -> None:
    """Each ended with its pictures or with a reason."""
    for one in found:
        if one.state is State.COMPLETED:
            assert one.result is not None
            assert len(one.result.images) == one.request.num_images
            for image in one.result.images:
                assert f"{one.id}-{one.attempt}/" in image.name
                assert len(await observer.storage.get(image.name)) == image.num_bytes
        else:
            assert one.error is not None
            assert (one.state, one.error["code"]) in {
                (State.FAILED, "maybe_charged"),
                (State.FAILED, "interrupted"),
            }


async def check_payments(observer: Ledger, every: Any, hosted: Hosted) -> None:
    """What was submitted counts against the caps, and no more than that and lost replies."""
    seeds = {one.id: one.request.seed for one in every}
    spent = await Budget(observer.database).spending()
    tags = {f"{seeds[one.prediction_id]}-{one.payment.index}": one for one in spent}
    assert hosted.submissions.keys() <= {tag for tag, one in tags.items() if one.counts}
    unsent = tags.keys() - hosted.submissions.keys()
    assert all(tags[tag].payment.state is PaymentState.UNKNOWN for tag in unsent)


async def test_a_frozen_process_loses_its_work_and_cannot_overwrite_the_result_when_it_wakes(
    hosted: Hosted, observer: Ledger, start_node: StartNode, tmp_path: Path
) -> None:
    hosted.done.clear()
    frozen = await start_node()
    await asyncio.wait_for(frozen.ready.wait(), 60)
    prediction_id = await frozen.submit("7-1")
    assert prediction_id is not None
    await asyncio.wait_for(hosted.polls.wait(), 20)  # it has paid, and waits for the picture
    await freeze(frozen.send, tmp_path)
    await start_node()
    hosted.done.set()
    async with asyncio.timeout(60):
        before = await observer.wait(prediction_id)
    assert (before.state, before.attempt) == (State.COMPLETED, 2)
    assert [attempt.outcome for attempt in before.attempts] == [Outcome.DIED, Outcome.COMPLETED]
    assert before.result is not None
    data = await observer.storage.get(before.result.images[0].name)

    frozen.send(signal.SIGCONT)
    await frozen.logged(prediction_id)  # that its result came too late, or its lease was lost
    after = await observer.get(prediction_id)
    assert after == before
    assert await observer.storage.get(before.result.images[0].name) == data
    assert hosted.submissions == {"7-0": 1}
