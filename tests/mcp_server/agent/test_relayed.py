"""MCP behind a balancer: every request of one client may reach another server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from castmate.router import Router
from castmate.service import Castmate
from castmate_mcp.settings import ServerSettings
from tests.castmate.jobs.conftest import empty, postgres_url  # noqa: F401
from tests.doubles import FlatClient, SlowClient, picture, routed
from tests.fleet.relay import Relay
from tests.mcp_server.agent.test_spending import PAID, User, clients, ready
from tests.mcp_server.agent.test_streamable import serve_site
from tests.mcp_server.agent.test_tasks import Tasks
from tests.mcp_server.conftest import Agent

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

RED = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"


@dataclass
class Relayed:
    """Two servers of one ledger, and a balancer that gives each connection to the next one."""

    servers: list[Castmate[ServerSettings]]
    url: str
    asked: list[int]

    @asynccontextmanager
    async def agent(self, era: str, **options: Any) -> AsyncIterator[Agent]:
        # A connection for every request: the balancer counts connections.
        limits = httpx2.Limits(max_keepalive_connections=0)
        async with (
            httpx2.AsyncClient(timeout=30, limits=limits, trust_env=False) as http,
            Client(
                streamable_http_client(f"{self.url}/mcp", http_client=http), mode=era, **options
            ) as client,
        ):
            yield Agent(client, None, self.servers[0])


@asynccontextmanager
async def relayed(
    folder: Path, drawing: Callable[[], Router], **options: Any
) -> AsyncIterator[Relayed]:
    options = {
        "database_url": f"sqlite:///{folder / 'ledger.sqlite3'}",
        "storage_url": f"file://{folder / 'pictures'}",
        "files_secret": "0123456789abcdef" * 2,
        "mcp_sessions": False,
        "image_roots": (),
    } | options
    asked = [0, 0]
    async with asyncio.timeout(60), AsyncExitStack() as ends:
        servers, targets = [], []
        for number in range(2):
            settings = ServerSettings.load(data_dir=folder / str(number), **options)
            serving = serve_site(settings, drawing())
            castmate, url, _ = await ends.enter_async_context(serving)
            servers.append(castmate)
            port = httpx2.URL(url).port
            assert port

            async def connect(number: int = number, port: int = port) -> Any:
                asked[number] += 1
                return await asyncio.open_connection("127.0.0.1", port)

            targets.append(connect)
        door = Relay(targets)
        await door.start()
        ends.push_async_callback(door.stop)
        yield Relayed(servers, f"http://127.0.0.1:{door.port}", asked)


def free(folder: Path, **options: Any) -> AbstractAsyncContextManager[Relayed]:
    """Servers whose clients cost nothing."""
    return relayed(folder, lambda: routed(FlatClient()), **options)


async def test_a_picture_is_drawn_and_looked_at_whoever_answers(own_folder: Path, era: str) -> None:
    async with (
        relayed(own_folder, lambda: routed(FlatClient())) as fleet,
        fleet.agent(era) as agent,
    ):
        saved = await agent.succeed("create_character", name="Fox", references=[RED])
        out = await agent.succeed(image=saved["character_id"])
        assert out["status"] == "completed"
        for _ in range(2):
            found = await agent.succeed("get_job", job_id=out["job_id"])
            assert found["images"] == out["images"]
            url = httpx2.URL(found["images"][0]["download_url"])
            async with httpx2.AsyncClient(trust_env=False) as http:
                assert (await http.get(url)).content.startswith(b"\x89PNG")
        assert min(fleet.asked) >= 2, "both servers have answered"


async def test_an_upload_link_of_one_server_is_taken_by_the_other(
    own_folder: Path, era: str
) -> None:
    async with (
        relayed(own_folder, lambda: routed(FlatClient())) as fleet,
        fleet.agent(era) as agent,
    ):
        for _ in range(2):
            link = await agent.succeed("create_upload_link")
            async with httpx2.AsyncClient(trust_env=False) as http:
                sent = await http.put(link["upload_url"], content=picture())
            assert sent.status_code == 200
            assert (await agent.succeed(image=link["image"]))["status"] == "completed"


async def test_the_answer_of_a_user_may_reach_another_server_than_the_question_came_from(
    own_folder: Path,
) -> None:
    user = User()
    async with relayed(own_folder, clients, **PAID) as fleet:
        for server in fleet.servers:
            await ready(Agent(None, None, server))  # type: ignore[arg-type]
        async with fleet.agent("auto", elicitation_callback=user) as agent:
            fleet.asked[:] = [0, 0]
            assert (await agent.succeed(image=RED))["client"] == "wavespeed"
        assert len(user.asked) == 1
        assert min(fleet.asked) >= 1, "they take turns: the answer went to the other one"


async def test_where_no_session_is_kept_the_user_is_asked_through_the_agent(
    own_folder: Path,
) -> None:
    async with relayed(own_folder, clients, **PAID) as fleet:
        for server in fleet.servers:
            await ready(Agent(None, None, server))  # type: ignore[arg-type]
        async with fleet.agent("legacy", elicitation_callback=User()) as agent:
            assert "accept_cost_usd 0.25" in await agent.fail(image=RED)
            out = await agent.succeed(image=RED, accept_cost_usd=0.25)
            assert out["client"] == "wavespeed"


async def test_a_task_that_one_server_has_begun_is_answered_by_the_other(own_folder: Path) -> None:
    slow, tasks = SlowClient(), Tasks()
    async with (
        relayed(own_folder, lambda: routed(slow)) as fleet,
        fleet.agent("auto", extensions=[tasks]) as agent,
        asyncio.TaskGroup() as group,
    ):
        calling = group.create_task(agent.call(image=RED))
        await tasks.seen.wait()
        fleet.asked[:] = [0, 0]
        while min(fleet.asked) < 1:
            await asyncio.sleep(0.01)
        assert set(tasks.statuses) <= {"working"}
        slow.may_end.set()
        result = await calling
    assert isinstance(result.structured_content, dict)
    assert result.structured_content["status"] == "completed"


async def test_who_listens_at_one_server_is_told_of_a_job_that_the_other_has_drawn(
    own_folder: Path,
    postgres_url: str,  # noqa: F811
) -> None:
    await empty(postgres_url)
    slow = SlowClient()
    options = {"database_url": postgres_url, "mcp_sessions": None, "hold_s": 0}
    async with (
        relayed(own_folder, lambda: routed(slow), **options) as fleet,
        fleet.agent("auto") as agent,
    ):
        uri = f"job://{(await agent.succeed(image=RED))['job_id']}"
        async with (
            agent.client.listen(resource_subscriptions=[uri]) as one,
            agent.client.listen(resource_subscriptions=[uri]) as other,
        ):
            slow.may_end.set()
            for events in (one, other):
                async for event in events:
                    assert getattr(event, "uri", None) == uri
                    break
        assert min(fleet.asked) >= 1


async def test_a_session_that_another_server_keeps_is_answered_as_one_that_has_ended(
    own_folder: Path,
) -> None:
    """The specification lets clients begin a new one then."""
    async with free(own_folder, mcp_sessions=True) as fleet:
        start = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"},
            },
        }
        accept = {"accept": "application/json, text/event-stream", "connection": "close"}
        async with httpx2.AsyncClient(trust_env=False, headers=accept) as http:
            opened = await http.post(f"{fleet.url}/mcp", json=start)
            session = {"mcp-session-id": opened.headers["mcp-session-id"]}
            listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
            statuses = [
                (await http.post(f"{fleet.url}/mcp", json=listing, headers=session)).status_code
                for _ in range(2)
            ]
        assert sorted(statuses) == [200, 404]
