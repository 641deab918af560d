"""Agents on another machine do not learn where the server keeps its files."""

from __future__ import annotations

import pytest
from mcp.client.client import Client

from castmate.errors import Unavailable
from castmate.service import Castmate
from castmate_mcp.agent.extensions.tasks import TasksExtension
from castmate_mcp.agent.server import build_server
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.settings import ServerSettings
from tests.doubles import FlatClient, routed

pytestmark = pytest.mark.anyio


def broken(server: StrictServer, tasks: TasksExtension) -> None:
    @server.tool()
    async def look() -> str:
        raise Unavailable("The ledger /srv/castmate/ledger.sqlite3 cannot be written: disk full.")


@pytest.mark.parametrize(
    ("base_url", "shown"),
    [(None, "/srv/castmate/ledger.sqlite3"), ("https://castmate.example", "ledger.sqlite3")],
)
async def test_errors_name_folders_only_to_agents_on_this_machine(
    own_folder: object, base_url: str | None, shown: str
) -> None:
    async with Castmate.open(ServerSettings.load(), router=routed(FlatClient())) as castmate:
        address = None if base_url is None else lambda request: base_url
        server = build_server(castmate, base_url=address, extra=[broken])
        async with Client(server) as client:
            result = await client.call_tool("look", {})
    (content,) = result.content
    assert result.is_error
    assert getattr(content, "text", "").startswith(f"The ledger {shown} cannot be written")
