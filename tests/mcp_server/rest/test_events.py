"""Server-sent events of a prediction: what comes, in which order, and what comes back later."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from castmate.clients.base import Progress
from castmate.clients.local import LocalClient
from castmate.errors import Unavailable
from castmate.schema import GenerateResult
from castmate.service import Castmate
from castmate_mcp.http.limits import Gate
from castmate_mcp.rest import events
from castmate_mcp.settings import ServerSettings
from tests.doubles import FlatClient, SlowClient, StuckClient, routed
from tests.mcp_server.running import REFERENCE, Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]


@dataclass
class Event:
    """As a browser hands it to a page."""

    name: str
    data: Any
    id: str | None


class Stepping(FlatClient):
    """Takes a step whenever it may."""

    def __init__(self, total: int = 3) -> None:
        super().__init__()
        self._may_step, self.total = asyncio.Semaphore(0), total
        self.started, self.cancelled = asyncio.Event(), asyncio.Event()

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self._may_step.release()

    async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
        request, reference, on_progress = args[:3]
        self.started.set()
        try:
            for step in range(self.total + 1):
                on_progress(Progress(step, self.total))
                await self._may_step.acquire()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return await super().generate(request, reference)


async def parsed(answer: httpx2.Response) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        else:
            if "data" in fields:
                yield Event(fields["event"], json.loads(fields["data"]), fields.get("id"))
            elif "retry" in fields:
                yield Event("retry", int(fields["retry"]), None)
            fields = {}


@asynccontextmanager
async def following(
    api: Api, name: str, last: str | None = None, **headers: str
) -> AsyncIterator[AsyncIterator[Event]]:
    if last is not None:
        headers["last-event-id"] = last
    path = f"/api/v3/predictions/{name}/events"
    async with asyncio.timeout(30), api.http.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        yield parsed(answer)


async def all_of(api: Api, name: str, last: str | None = None) -> list[Event]:
    async with following(api, name, last) as stream:
        return [event async for event in stream]


async def free_of_streams(api: Api) -> None:
    """Wait until nothing is held for any stream, nor listened to."""
    hub = api.gateway.castmate.ledger.database.hub
    async with asyncio.timeout(10):
        while api.gateway.gate.streams._held or hub._watchers:
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_a_real_drawing_is_told_step_by_step_with_each_picture_and_its_end(
    tmp_path: Path,
) -> None:
    client = LocalClient.open(ServerSettings.load(data_dir=tmp_path / "data"))
    async with serving(client, tmp_path / "data") as api:
        files = {"file": ("mira.png", REFERENCE.read_bytes(), "image/png")}
        uploaded = await api.ask("POST", "/api/v3/media/upload/binary", files=files)
        job = await api.submit(image=uploaded["download_url"], num_images=2, num_inference_steps=3)
        events = await all_of(api, job["id"])
        steps = [event for event in events if event.name == "step"]
        assert [event.data["step"] for event in steps] == sorted(
            {event.data["step"] for event in steps}
        )
        assert steps[-1].data == {"step": 6, "total": 6}
        shown = [event.data for event in events if event.name == "preview"]
        assert [one["number"] for one in shown] == [0, 1]
        assert [one["seed"] for one in shown] == [7, 8]
        kind, _, data = shown[0]["image"].partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (512, 512)
        assert {event.name for event in events[:-1]} == {"status", "step", "preview"}
        assert events[-1].name == events[-1].id == "end"
        result = await api.ask("GET", f"/api/v3/predictions/{job['id']}/result")
        assert events[-1].data == result
        assert result["status"] == "completed"


async def test_whoever_comes_back_is_told_only_what_is_new(tmp_path: Path) -> None:
    client = Stepping()
    async with serving(client, tmp_path / "data") as api:
        name = (await api.submit())["id"]
        async with following(api, name) as stream:
            while (event := await anext(stream)).name != "step":
                assert event.name == "status"
            assert event.data["step"] == 0
            client.step()
            event = await anext(stream)
            assert (event.data["step"], event.id) == (1, "1-0")
        client.step()
        async with following(api, name, "1-0") as stream:
            assert (await anext(stream)).data == {"status": "processing"}
            assert (await anext(stream)).data["step"] == 2
        async with following(api, name, "2-0") as stream:
            assert (await anext(stream)).name == "status"
            client.step(2)
            rest = [event async for event in stream]
        assert [event.name for event in rest][-1] == "end"
        assert all(event.data["step"] > 2 for event in rest if event.name == "step")


async def test_a_late_caller_is_told_at_once_how_far_it_is(tmp_path: Path) -> None:
    client = Stepping()
    async with serving(client, tmp_path / "data") as api:
        name = (await api.submit())["id"]
        client.step(2)
        hub = api.gateway.castmate.ledger.database.hub
        async with asyncio.timeout(10):
            while (latest := hub._latest.get(name)) is None or latest.step < 2:
                await asyncio.sleep(0.01)
        async with following(api, name) as stream:
            assert [(await anext(stream)).name for _ in range(2)] == ["status", "step"]


async def test_an_end_that_is_reached_already_is_told_and_then_nothing_more(
    tmp_path: Path,
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        name = (await api.submit())["id"]
        result = await api.final(name)
        (end,) = await all_of(api, name)
        assert (end.name, end.id, end.data) == ("end", "end", result)
        path = f"/api/v3/predictions/{name}/events"
        again = await api.http.get(path, headers={"last-event-id": "end"})
        assert (again.status_code, again.text) == (204, "")
        (end,) = await all_of(api, name, "no id of an event")
        assert end.name == "end"


async def test_a_cancelled_and_a_failed_prediction_end_the_stream(tmp_path: Path) -> None:
    client = Stepping()
    async with serving(client, tmp_path / "data") as api:
        name = (await api.submit())["id"]
        async with following(api, name, **{"x-client-name": "x"}) as stream:
            while (await anext(stream)).name != "step":
                pass
            await api.ask("POST", f"/api/v3/predictions/{name}/cancel")
            end = [event async for event in stream][-1]
        assert (end.name, end.data["status"]) == ("end", "failed")
        assert "Cancelled" in end.data["error"]
        assert client.cancelled.is_set()


async def test_why_it_waits_is_told(tmp_path: Path) -> None:
    client = FlatClient(Unavailable("No model in /srv/models/toon/bundle.json."))
    async with serving(client, tmp_path / "data") as api:
        name = (await api.submit())["id"]
        async with following(api, name) as stream:
            while "waiting_for" not in (event := await anext(stream)).data:
                pass
            assert event.name == "status"
            assert event.data == {"status": "created", "waiting_for": "No model in bundle.json."}


async def test_another_keys_prediction_and_an_unknown_one_are_not_there(tmp_path: Path) -> None:
    async with serving(StuckClient(), tmp_path / "data") as api:
        ann, bob = await api.key("ann"), await api.key("bob")
        path = "/api/v3/wavespeed-ai/instant-character"
        name = (await api.ask("POST", path, json=api.inputs(), headers=ann))["id"]
        for of in (name, "0" * 32):
            await api.ask("GET", f"/api/v3/predictions/{of}/events", 404, headers=bob)
        await api.ask("GET", f"/api/v3/predictions/{name}/events", 401)
        async with following(api, name, **ann) as stream:
            assert (await anext(stream)).name == "status"


async def test_a_caller_who_hangs_up_frees_everything_and_stops_nothing(tmp_path: Path) -> None:
    client = SlowClient()
    async with serving(client, tmp_path / "data") as api:
        name = (await api.submit())["id"]
        reader, writer = await asyncio.open_connection(
            api.http.base_url.host, api.http.base_url.port
        )
        asked = f"GET /api/v3/predictions/{name}/events HTTP/1.1\r\nhost: {api.url[7:]}\r\n\r\n"
        writer.write(asked.encode())
        async with asyncio.timeout(10):
            await reader.readuntil(b"event: status")
        assert api.gateway.gate.streams._held == 1
        writer.transport.abort()
        await free_of_streams(api)
        client.may_end.set()
        assert (await api.final(name))["status"] == "completed"


async def test_a_key_follows_no_more_at_a_time_than_its_share(tmp_path: Path) -> None:
    async with serving(StuckClient(), tmp_path / "data") as api:
        ann, bob = await api.key("ann"), await api.key("bob")
        path = "/api/v3/wavespeed-ai/instant-character"
        mine = (await api.ask("POST", path, json=api.inputs(), headers=ann))["id"]
        theirs = (await api.ask("POST", path, json=api.inputs(), headers=bob))["id"]
        api.gateway.gate = Gate(max_streams=4)
        async with following(api, mine, **ann) as stream:
            await anext(stream)
            body = await api.ask("GET", f"/api/v3/predictions/{mine}/events", 429, headers=ann)
            assert "1 streams open" in body["message"]
            async with following(api, theirs, **bob) as other:
                await anext(other)
        await free_of_streams(api)


async def test_a_server_that_ends_asks_to_come_back(tmp_path: Path) -> None:
    async with serving(StuckClient(), tmp_path / "data") as api:
        name = (await api.submit())["id"]
        async with following(api, name) as stream:
            await anext(stream)
            api.gateway.draining.set()
            rest = [event async for event in stream]
        assert rest[-1] == Event("retry", events.RETRY_MS, None)
        assert "end" not in [event.name for event in rest]


async def test_a_prediction_that_is_removed_ends_the_stream(tmp_path: Path) -> None:
    async with serving(StuckClient(), tmp_path / "data") as api:
        name = (await api.submit())["id"]
        ledger = api.gateway.castmate.ledger
        async with following(api, name) as stream:
            await anext(stream)

            async def gone(*_: Any) -> None:
                raise Unavailable("The ledger is away.")

            ledger.get = gone  # type: ignore[method-assign, assignment]
            ledger.database.hub.notify_all()
            assert [event async for event in stream][-1].name == "retry"


async def test_a_silent_stream_shows_that_it_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.05)
    async with serving(StuckClient(), tmp_path / "data") as api:
        name = (await api.submit())["id"]
        path = f"/api/v3/predictions/{name}/events"
        async with asyncio.timeout(10), api.http.stream("GET", path) as answer:
            async for line in answer.aiter_lines():
                if line == ": still there":
                    break


async def test_what_another_process_draws_is_told_when_it_begins_and_ends(tmp_path: Path) -> None:
    client = SlowClient()
    settings = ServerSettings.load(data_dir=tmp_path / "data")
    async with (
        serving(FlatClient(), tmp_path / "data", worker_slots=0) as api,
        Castmate.open(settings, router=routed(client)) as elsewhere,
    ):
        name = (await api.submit())["id"]
        async with following(api, name) as stream:
            assert (await anext(stream)).data == {"status": "created"}
            elsewhere.work()
            assert (await anext(stream)).data == {"status": "processing"}
            client.may_end.set()
            assert (await anext(stream)).name == "end"
