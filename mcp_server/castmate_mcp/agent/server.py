"""Builds the MCP server, the same for every transport; knows neither flags nor models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mcp.server import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.request_state import RequestStateSecurity
from mcp.types import CallToolResult, TextContent

from castmate import __version__
from castmate.service import Castmate
from castmate_mcp.agent import notices, prompts, resources
from castmate_mcp.agent.extensions.skills import SkillsExtension
from castmate_mcp.agent.extensions.tasks import Policy, TasksExtension
from castmate_mcp.agent.extensions.viewer import viewer
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.agent.studio import DRAW_SCENES, BaseUrl, Studio
from castmate_mcp.agent.subscriptions import Subscriptions
from castmate_mcp.agent.tools import (
    characters,
    editing,
    generate,
    jobs,
    library,
    pictures,
    scenes,
    status,
    uploads,
)
from castmate_mcp.http.ids import job_id_of
from castmate_mcp.settings import ServerSettings

GENERATE: Final = generate.NAME
INSTRUCTIONS: Final = (
    "Castmate keeps a character the same in every picture. Give generate_character_image one "
    "picture of the character and a prompt for the scene; for the next scene give the same picture "
    "again, or save it with create_character and give its name. draw_scenes draws "
    "many scenes at once. A call that returns status running has not failed: get_job waits for it."
)
_HOUR_MS: Final = 3_600_000

Register = Callable[[StrictServer, TasksExtension], None]


def build_server(
    castmate: Castmate[ServerSettings],
    *,
    base_url: BaseUrl | None = None,
    extra: Sequence[Register] = (),
) -> StrictServer:
    """The server, ready to run on any transport.

    Args:
        castmate: Opened; the caller closes it.
        base_url: Over HTTP, this server's address as the caller of a request sees it.
        extra: Registers more; the conformance tests add their fixtures.
    """
    studio = Studio(castmate, base_url)
    policies: dict[str, Policy] = dict.fromkeys((GENERATE, DRAW_SCENES, "get_job"), "optional")
    jobs_of_tasks = _Jobs(studio)
    tasks = TasksExtension(policies, jobs_of_tasks)
    # The SDK sets logging up itself, on stderr.
    server = StrictServer(
        "castmate",
        title="Castmate",
        version=__version__,
        description="The same character in every picture.",
        instructions=INSTRUCTIONS,
        log_level="WARNING",
        extensions=[SkillsExtension(), tasks, viewer()],
        cache_hints={"tools/list": CacheHint(ttl_ms=_HOUR_MS, scope="public")},
        # The state that a client returns with its user's answer may reach another server.
        request_state_security=RequestStateSecurity(
            keys=[castmate.storage.sign("mcp", "request state")]
        ),
        subscriptions=Subscriptions(castmate.ledger.database.hub),
    )
    jobs_of_tasks.server = server
    server.shown = studio.shown
    for module in (generate, scenes, jobs, pictures, characters, library, editing, status):
        module.add(server, studio)
    if base_url is not None:
        uploads.add(server, studio)
    resources.add(server, studio)
    prompts.add(server, studio)
    notices.add(server)
    for register in extra:
        register(server, tasks)
    return server


@dataclass
class _Jobs:
    """Jobs behind the tasks of other processes; `get_job` gives the outcome of their calls."""

    studio: Studio
    server: StrictServer = field(init=False)

    async def cancel(self, name: str) -> None:
        """See `tasks.Jobs.cancel`."""
        await self.studio.cancel(name)

    async def look(self, ctx: ServerRequestContext[Any, Any], name: str) -> CallToolResult | None:
        """See `tasks.Jobs.look`."""
        job = await self.studio.job(job_id_of(name))
        if not job.state.final:
            return None
        context: Context[Any, Any] = Context(request_context=ctx, mcp_server=self.server)
        arguments = {"job_id": job_id_of(name), "wait_seconds": 0}
        try:
            found = await self.server.call_tool("get_job", arguments, context)
        except ToolError as error:
            text = TextContent(type="text", text=str(error))
            return CallToolResult(content=[text], is_error=True)
        assert isinstance(found, CallToolResult)
        return found
