"""The client without ComfyUI: streams that break, servers that are away or older, keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from comfyui.client import address, drawing
from comfyui.client.api import Api
from comfyui.client.drawing import Reference, draw
from comfyui.client.errors import CastmateError, Lost
from comfyui.client.events import Event, parse
from tests.doubles import FlatClient, SlowClient, picture
from tests.mcp_server.running import Api as Server
from tests.mcp_server.running import serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forgetful")]
INPUTS = {"prompt": "waving", "size": "512*512", "seed": 7, "num_inference_steps": 2}


def never() -> None:
    """Nobody interrupts."""


async def drawn(url: str, heard: list[Event] | None = None) -> drawing.Drawn:
    async def report(event: Event) -> None:
        if heard is not None:
            heard.append(event)

    async with asyncio.timeout(30), Api.open(url) as api:
        return await draw(api, Reference(picture()), INPUTS, report, never)


@asynccontextmanager
async def standing_in(answers: Any) -> AsyncIterator[str]:
    """A server that answers as `answers` does."""
    app = web.Application()

    async def answer(request: web.Request) -> web.StreamResponse:
        found: web.StreamResponse = await answers(request)
        return found

    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Passing:
    """Passes everything on to a real server, but for what it is told to break."""

    def __init__(self, server: Server, *, events: bool = True, cut: int = 0) -> None:
        self.server, self.events, self.cut = server, events, cut
        self.last: list[str | None] = []
        self.submitted: list[str | None] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/events"):
            self.last.append(request.headers.get("last-event-id"))
            if not self.events:
                return web.json_response({"message": "no such route"}, status=404)
            return await self._stream(request)
        if request.path.endswith("/instant-character"):
            self.submitted.append(request.headers.get("idempotency-key"))
        answer = await self.server.http.request(
            request.method,
            request.path,
            content=await request.read(),
            headers={k: v for k, v in request.headers.items() if k.lower() != "host"},
        )
        text = answer.text.replace(str(request.url.origin()), self.server.url)
        return web.Response(status=answer.status_code, text=text, content_type="application/json")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await stream.prepare(request)
        headers = {"last-event-id": self.last[-1]} if self.last[-1] else {}
        async with self.server.http.stream("GET", request.path, headers=headers) as answer:
            async for line in answer.aiter_lines():
                await stream.write(f"{line}\n".encode())
                if line.startswith("event: ") and self.cut:
                    self.cut -= 1
                    assert request.transport is not None
                    request.transport.abort()
                    break
        return stream


async def lines(text: str) -> AsyncIterator[bytes]:
    for line in text.splitlines(keepends=True):
        yield line.encode()


async def test_events_are_read_as_browsers_read_them() -> None:
    text = (
        ': still there\r\n\r\nid: 1-0\r\nevent: step\r\ndata: {"step":\r\ndata: 1}\r\n\r\n'
        "retry: 3000\n\nevent:end\ndata:{}\n\nevent: cut\ndata: {}"
    )
    found = [event async for event in parse(lines(text))]
    assert found == [Event("step", {"step": 1}, "1-0"), Event("end", {})]


async def test_a_stream_that_breaks_is_taken_up_where_it_was(tmp_path: Path) -> None:
    client = SlowClient()
    async with serving(client, tmp_path / "data") as server:
        passing = Passing(server, cut=2)
        async with standing_in(passing) as url:
            drawing_it = asyncio.create_task(drawn(url))
            async with asyncio.timeout(20):
                while len(passing.last) < 3:
                    await asyncio.sleep(0.01)
            client.may_end.set()
            assert len((await drawing_it).pictures) == 1
        assert len(client.requests) == 1


async def test_a_server_without_events_is_polled(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as server:
        passing = Passing(server, events=False)
        async with standing_in(passing) as url:
            done = await drawn(url)
        assert done.seeds == (7,)
        assert len(done.pictures) == 1


async def test_a_workflow_that_was_cut_off_finds_its_job_again(tmp_path: Path) -> None:
    client = SlowClient()
    async with serving(client, tmp_path / "data") as server:
        passing = Passing(server)
        async with standing_in(passing) as url:
            cut_off = asyncio.create_task(drawn(url))
            await client.started.wait()
            # What a process that dies does not do: it does not cancel its job.
            async with Api.open(url) as api:
                again = asyncio.create_task(drawn(url))
                client.may_end.set()
                first, second = await asyncio.gather(cut_off, again)
                assert (await api.result(first.ids[0][4:36]))["status"] == "completed"
        assert first.ids == second.ids
        assert passing.submitted[0] == passing.submitted[1]
        assert len(client.requests) == 1


async def test_a_server_that_stays_away_is_told_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "LOST_S", 0.1)
    client = SlowClient()
    async with serving(client, tmp_path / "data") as server:
        passing = Passing(server)
        async with standing_in(passing) as url:
            waiting = asyncio.create_task(drawn(url))
            await client.started.wait()
        with pytest.raises(Lost, match="queue the workflow again when the server is back"):
            await waiting
        (item,) = (await server.ask("POST", "/api/v3/predictions", json={}))["items"]
        client.may_end.set()
        assert (await server.final(item["id"]))["status"] == "completed"


async def test_something_else_at_the_address_is_not_taken_for_castmate() -> None:
    async def other(request: web.Request) -> web.Response:
        return web.Response(text="<h1>It works!</h1>", content_type="text/html")

    async with standing_in(other) as url:
        with pytest.raises(CastmateError, match="it answered 200, which is not Castmate's"):
            await drawn(url)


async def test_a_key_is_for_its_own_server_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTMATE_KEY", "mine")
    assert address.key_for(address.default_url()) == "mine"
    assert address.key_for("https://evil.example") is None
    monkeypatch.setenv("CASTMATE_URL", "https://Cast.example.com/")
    assert address.default_url() == "https://cast.example.com"
    assert address.key_for("https://cast.example.com") == "mine"
    assert address.key_for(address.DEFAULT_URL) is None
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{address.DEFAULT_URL}/ local\n\nhttps://other.example theirs\n")
    monkeypatch.setenv("CASTMATE_KEYS_FILE", str(file))
    assert address.key_for("https://other.example") == "theirs"
    assert address.key_for(address.DEFAULT_URL) == "local"
    assert address.key_for("https://evil.example") is None
    for wrong in ("127.0.0.1:8787", "ftp://a", "http://ann:secret@a", ""):
        with pytest.raises(CastmateError, match="is no address of a Castmate server"):
            address.normal(wrong)


async def test_without_its_key_a_server_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as server:
        ann = await server.key("ann")
        with pytest.raises(CastmateError, match=f"write the line `{server.url} KEY` into"):
            await drawn(server.url)
        monkeypatch.setenv("CASTMATE_URL", server.url)
        monkeypatch.setenv("CASTMATE_KEY", ann["authorization"].removeprefix("Bearer "))
        heard: list[Event] = []
        done = await drawn(server.url, heard)
        assert len(done.pictures) == 1
        assert json.dumps(done.ids).startswith('["img_')
