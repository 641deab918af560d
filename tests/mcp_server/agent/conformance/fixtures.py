"""What the official conformance suite calls by name, added to our server by its own factory."""

from __future__ import annotations

from typing import Any

from mcp.types import EmptyResult, SetLevelRequestParams

from castmate_mcp.agent.extensions.tasks import TasksExtension
from castmate_mcp.agent.strict import StrictServer
from tests.mcp_server.agent.conformance.asking import add_asking
from tests.mcp_server.agent.conformance.contents import add_contents
from tests.mcp_server.agent.conformance.reading import add_prompts, add_resources
from tests.mcp_server.agent.conformance.rounds import add_rounds
from tests.mcp_server.agent.conformance.tasks import add_tasks


def register(server: StrictServer, tasks: TasksExtension) -> None:
    """Add every fixture."""
    add_tasks(server, tasks)
    add_contents(server)
    add_asking(server)
    add_rounds(server)
    add_resources(server)
    add_prompts(server)

    async def set_level(ctx: Any, params: SetLevelRequestParams) -> EmptyResult:
        return EmptyResult()

    server._lowlevel_server.add_request_handler(
        "logging/setLevel", SetLevelRequestParams, set_level
    )
