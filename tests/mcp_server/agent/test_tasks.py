"""Clients that know tasks ask later for a picture; cancelling the task cancels the job."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from mcp import types
from mcp.client import ClientExtension, ResultClaim
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from benchmarks.server_process import ServerProcess, castmate_serve
from castmate_mcp.agent.server import GENERATE
from tests.doubles import SlowClient, StuckClient, picture
from tests.mcp_server.conftest import SCENE, Caller, Connect

pytestmark = pytest.mark.anyio


class TaskResult(types.Result):
    result_type: Literal["task"] = "task"
    task_id: str
    status: str


class TaskId(types.RequestParams):
    task_id: str


class GetTask(types.Request[TaskId, Literal["tasks/get"]]):
    method: Literal["tasks/get"] = "tasks/get"
    params: TaskId
    name_param = "taskId"


class CancelTask(types.Request[TaskId, Literal["tasks/cancel"]]):
    method: Literal["tasks/cancel"] = "tasks/cancel"
    params: TaskId
    name_param = "taskId"


class Found(types.Result):
    status: str
    status_message: str | None = None
    result: dict[str, Any] | None = None


class Tasks(ClientExtension):
    """Waits for tasks, after `begun` has been looked at."""

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self) -> None:
        self.begun: str | None = None
        self.seen = anyio.Event()
        self.statuses: list[str] = []

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=TaskResult, resolve=self._wait)]

    async def _wait(self, claim: TaskResult, ctx: Any) -> types.CallToolResult:
        self.begun = claim.task_id
        self.seen.set()
        while True:
            request = GetTask(params=TaskId(task_id=claim.task_id))
            found = await ctx.session.send_request(request, Found)
            self.statuses.append(found.status)
            if found.status == "completed":
                return types.CallToolResult.model_validate(found.result)
            if found.status in ("failed", "cancelled"):
                raise MCPError(types.INTERNAL_ERROR, found.status)
            await anyio.sleep(0.01)  # less than any server would like


class Leaving(Tasks):
    """Has no time to wait."""

    async def _wait(self, claim: TaskResult, ctx: Any) -> types.CallToolResult:
        self.begun = claim.task_id
        return types.CallToolResult(content=[], is_error=True)


@asynccontextmanager
async def connected(server: ServerProcess, *extensions: ClientExtension) -> AsyncIterator[Caller]:
    transport = streamable_http_client(f"{server.url}/mcp")
    async with Client(transport, mode="auto", extensions=extensions) as client:
        yield Caller(client)


@pytest.fixture
def era() -> str:
    """Tasks are of the newer one."""
    return "auto"


async def test_a_picture_that_takes_long_is_a_task_until_it_is_finished(connect: Connect) -> None:
    slow, tasks = SlowClient(), Tasks()
    async with (
        connect(slow, hold_s=0, client_extensions=[tasks]) as agent,
        anyio.create_task_group() as group,
    ):

        async def call() -> None:
            result = await agent.client.call_tool(GENERATE, SCENE)
            assert isinstance(result.structured_content, dict)
            assert result.structured_content["status"] == "completed"

        group.start_soon(call)
        await tasks.seen.wait()
        slow.may_end.set()
    assert tasks.statuses[-1] == "completed"


async def test_cancelling_the_task_stops_the_job(connect: Connect) -> None:
    stuck, tasks = StuckClient(), Tasks()
    async with connect(stuck, client_extensions=[tasks]) as agent:

        async def call() -> None:
            with pytest.raises(MCPError, match="cancelled"):
                await agent.client.call_tool(GENERATE, SCENE)

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await tasks.seen.wait()
            await stuck.started.wait()
            assert tasks.begun
            request = CancelTask(params=TaskId(task_id=tasks.begun))
            await agent.client.session.send_request(request, types.Result)
        await stuck.cancelled.wait()
        (job,) = (await agent.succeed("list_library", kind="jobs"))["items"]
        assert (await agent.succeed("get_job", job_id=job["id"]))["status"] == "cancelled"


@pytest.mark.slow
async def test_after_a_kill_an_old_task_still_gives_its_picture(tmp_path: Path) -> None:
    red = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    scene = SCENE | {"image": red, "size": "512*512", "num_inference_steps": 25, "num_images": 4}
    settings, tasks = {"CASTMATE_LEASE_S": "1"}, Leaving()
    with anyio.fail_after(100):
        with castmate_serve(tmp_path / "data", **settings) as server:
            async with connected(server, tasks) as agent:
                await agent.client.call_tool(GENERATE, scene)
                while not (await agent.succeed("list_library", kind="jobs"))["items"]:
                    await anyio.sleep(0.05)
                server.kill()
        assert tasks.begun
        with castmate_serve(tmp_path / "data", **settings) as server:
            async with connected(server, tasks) as agent:
                gone = GetTask(params=TaskId(task_id="task_of_nobody"))
                with pytest.raises(MCPError, match="list_library with kind=jobs"):
                    await agent.client.session.send_request(gone, Found)
                request = GetTask(params=TaskId(task_id=tasks.begun))
                while (
                    found := await agent.client.session.send_request(request, Found)
                ).status == "working":
                    await anyio.sleep(0.2)
    assert found.result
    drawn = found.result["structuredContent"]
    assert (drawn["status"], len(drawn["images"])) == ("completed", 4)
