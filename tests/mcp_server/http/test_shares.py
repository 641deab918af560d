"""Of whatever is bounded, a key holds a share: the others get in at once."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from castmate_mcp.agent import streamable
from castmate_mcp.http import references
from castmate_mcp.http.limits import Gate
from tests.doubles import FlatClient, StuckClient, picture
from tests.mcp_server.running import MODEL, Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

MODERN = {
    "mcp-protocol-version": "2026-07-28",
    "accept": "application/json, text/event-stream",
}
LEGACY = {"accept": "application/json, text/event-stream"}
numbers = itertools.count(1)


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return {
        "jsonrpc": "2.0",
        "id": next(numbers),
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": meta},
    }


async def ask_tool(api: Api, key: dict[str, str], tool: str, **arguments: Any) -> httpx2.Response:
    named = MODERN | {"mcp-method": "tools/call", "mcp-name": tool}
    return await api.http.post("/mcp", json=call(tool, **arguments), headers=key | named)


def result_of(answer: httpx2.Response) -> Any:
    """What a tool gave; a call that takes a while is answered as a stream of events."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.json()["result"]
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    return json.loads(events[-1])["result"]


async def open_session(api: Api, key: dict[str, str]) -> httpx2.Response:
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    return await api.http.post("/mcp", json=message, headers=key | LEGACY)


async def test_calls_that_wait_leave_room_for_other_keys(tmp_path: Path) -> None:
    async with serving(StuckClient(), tmp_path / "data", with_mcp=True) as api:
        ann, bob = await api.key("ann"), await api.key("bob")
        job = (await api.ask("POST", MODEL, json=api.inputs(), headers=ann))["id"]
        api.gateway.gate = Gate(max_requests=8)
        waits = [
            asyncio.create_task(ask_tool(api, ann, "get_job", job_id=f"job_{job}", wait_seconds=60))
            for _ in range(12)
        ]
        async with asyncio.timeout(20):
            while sum(wait.done() for wait in waits) < 10:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=0.1)
            refused = [wait.result() for wait in waits if wait.done()]
            assert [answer.status_code for answer in refused] == [429] * 10
            assert "Key 'ann' has 2 requests in hand, its share" in refused[0].json()["message"]
            assert (await ask_tool(api, bob, "get_status")).status_code == 200
            await api.ask("GET", "/api/v3/balance", headers=bob)
            await api.ask("GET", "/api/v3/balance", 429, headers=ann)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def test_a_key_opens_its_share_of_sessions_and_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamable, "MAX_SESSIONS", 40)
    async with serving(FlatClient(), tmp_path / "data", with_mcp=True) as api:
        ann, bob = await api.key("ann"), await api.key("bob")
        api.gateway.gate = Gate(max_streams=4)
        opened = await asyncio.gather(*(open_session(api, ann) for _ in range(60)))
        mine = [answer for answer in opened if answer.status_code == 200]
        assert len(mine) == 10
        answer = await open_session(api, ann)
        assert answer.status_code == 429
        assert "Key 'ann' has 10 MCP sessions open, its share" in answer.json()["message"]
        theirs = await open_session(api, bob)
        assert theirs.status_code == 200
        async with asyncio.timeout(20), contextlib.AsyncExitStack() as streams:
            for key, answer, status in (
                (ann, mine[0], 200),
                (ann, mine[1], 429),
                (bob, theirs, 200),
            ):
                of_session = {"mcp-session-id": answer.headers["mcp-session-id"]}
                stream = api.http.stream("GET", "/mcp", headers=key | LEGACY | of_session)
                assert (await streams.enter_async_context(stream)).status_code == status
        of_first = {"mcp-session-id": mine[0].headers["mcp-session-id"]}
        await api.http.delete("/mcp", headers=ann | LEGACY | of_first)
        assert (await open_session(api, ann)).status_code == 200


async def test_a_key_fills_its_share_of_the_queue(tmp_path: Path) -> None:
    async with serving(
        FlatClient(), tmp_path / "data", with_mcp=True, queue_limit=8, worker_slots=0
    ) as api:
        ann, bob = await api.key("ann"), await api.key("bob")
        for seed in range(2):
            await api.ask("POST", MODEL, json=api.inputs(seed=seed), headers=ann)
        body = await api.ask("POST", MODEL, 429, json=api.inputs(seed=3), headers=ann)
        assert "2 predictions of key 'ann' are waiting, its share of the queue" in body["message"]
        red = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
        drawn = await ask_tool(api, ann, "generate_character_image", prompt="waving", image=red)
        assert "its share of the queue" in drawn.text
        await api.ask("POST", MODEL, json=api.inputs(), headers=bob)


async def test_who_names_slow_addresses_delays_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()
    asked: list[str] = []

    async def slow(url: str, **_: Any) -> bytes:
        asked.append(url)
        await never.wait()
        return b""

    monkeypatch.setattr(references, "fetch", slow)
    async with serving(FlatClient(), tmp_path / "data", with_mcp=True, worker_slots=0) as api:
        ann, bob = await api.key("ann"), await api.key("bob")
        api.gateway.gate = Gate(max_fetches=12)
        slow_input = api.inputs(image="https://example.com/slow.png")
        waits = [
            asyncio.create_task(api.http.post(MODEL, json=slow_input, headers=ann))
            for _ in range(5)
        ]
        async with asyncio.timeout(20):
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            refused = [wait.result() for wait in waits if wait.done()]
            assert [answer.status_code for answer in refused] == [429] * len(refused)
            assert "'ann' has 3 pictures being fetched" in refused[0].json()["message"]
            answer = await ask_tool(
                api, ann, "create_character", name="Fox", references=["https://example.com/x.png"]
            )
            assert "'ann' has 3 pictures being fetched" in answer.text
            await api.ask("POST", MODEL, json=api.inputs(), headers=bob)
            assert len(asked) == 3
        never.set()
        await asyncio.gather(*waits, return_exceptions=True)


@pytest.mark.parametrize("form", [True, False])
async def test_links_of_one_key_take_its_share_of_slow_uploads(tmp_path: Path, form: bool) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        ann, bob = await api.key("ann", per_minute=None), await api.key("bob")
        api.gateway.gate = Gate(max_requests=8)
        host, port = api.http.base_url.host, api.http.base_url.port
        writers = []
        for _ in range(2):
            head = await _slow_upload(api, ann, form)
            writers.append(await _held(host, port, head))
        async with asyncio.timeout(20):
            while (await api.http.get("/api/v3/balance", headers=ann)).status_code != 429:
                await asyncio.sleep(0)
            await api.ask("GET", "/api/v3/balance", headers=bob)
            uploaded = {"file": ("fox.png", picture((64, 64)), "image/png")}
            await api.ask("POST", "/api/v3/media/upload/binary", files=uploaded, headers=bob)
        for writer in writers:
            writer.close()
            await writer.wait_closed()


async def _held(host: str, port: int | None, head: bytes) -> asyncio.StreamWriter:
    """A request that the server holds: it is refused while an answered one still has its place."""
    async with asyncio.timeout(20):
        while True:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(head)
            await writer.drain()
            try:
                async with asyncio.timeout(0.3):
                    assert b" 429 " in await reader.readline()
            except TimeoutError:
                return writer
            writer.close()
            await writer.wait_closed()


async def _slow_upload(api: Api, key: dict[str, str], form: bool) -> bytes:
    """The head of an upload whose body never comes."""
    sent = f"authorization: {key['authorization']}\r\ncontent-length: 1000\r\n"
    if form:
        kind = "content-type: multipart/form-data; boundary=x\r\n"
        return f"POST /api/v3/media/upload/binary HTTP/1.1\r\nhost: a\r\n{kind}{sent}\r\n".encode()
    asked = {"filename": "fox.png", "size": 1000, "content_type": "image/png"}
    ticket = await api.ask("POST", "/api/v3/media/uploads", json=asked, headers=key)
    path = ticket["upload"]["url"].removeprefix(api.url)
    return f"PUT {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n".encode()
