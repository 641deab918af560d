"""Tools of the suite that become tasks: slow ones, failing ones, and some that ask in between."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, InputRequiredResult

from castmate_mcp.agent.extensions.tasks import TasksExtension
from castmate_mcp.agent.strict import StrictServer
from tests.mcp_server.agent.conformance.pieces import FIXTURE, question


def add_tasks(server: StrictServer, tasks: TasksExtension) -> None:
    tool = partial(server.tool, description=FIXTURE, structured_output=False)

    @tool()
    async def greet(name: str = "you") -> str:
        return f"Hello, {name}!"

    @tool()
    async def slow_compute(ctx: Context[Any, Any], seconds: float = 1, label: str = "") -> str:
        steps = 4
        for step in range(steps):
            await ctx.report_progress(step, steps, f"{step} of {steps}")
            await asyncio.sleep(seconds / steps)
        return f"Computed {label}"

    @tool()
    async def failing_job() -> str:
        await asyncio.sleep(1)
        raise ToolError("The job failed")

    @tool()
    async def protocol_error_job() -> str:
        await asyncio.sleep(0.2)
        raise MCPError(INTERNAL_ERROR, "The protocol failed")

    @tool()
    async def test_tool_with_task(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        answers = ctx.input_responses or {}
        if "user_name" not in answers:
            asked: Any = {"user_name": question("What is your name?", "name")}
            return InputRequiredResult(input_requests=asked)
        await asyncio.sleep(0.3)  # longer than what is answered directly
        return f"Hello, {answers['user_name']}"

    @tool()
    async def confirm_delete(ctx: Context[Any, Any], filename: str) -> str | InputRequiredResult:
        answers = ctx.input_responses or {}
        if "confirm" not in answers:
            asked: Any = {"confirm": question(f"Delete {filename}?", "confirm", "boolean")}
            return InputRequiredResult(input_requests=asked)
        return f"{filename}: {answers['confirm']}"

    @tool()
    async def multi_input(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        answers = ctx.input_responses or {}
        if not {"name", "age"} <= answers.keys():
            asked: Any = {
                "name": question("Your name?", "name"),
                "age": question("Your age?", "age", "integer"),
            }
            return InputRequiredResult(input_requests=asked)
        return f"{answers['name']}, {answers['age']}"

    tasks.policies |= {
        "greet": "optional",
        "slow_compute": "optional",
        "failing_job": "required",
        "test_tool_with_task": "required",
        "protocol_error_job": "optional",
        "confirm_delete": "during",
        "multi_input": "during",
    }
