"""MCP through the balancer of a fleet: the official checks, and whole generations in both eras."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fleet.relay import Relay
from tests.fleet.services import Gateway
from tests.mcp_server.agent.test_official import ENVIRONMENT, NODE, SCENARIOS

pytestmark = [pytest.mark.anyio, pytest.mark.fleet]

# The life of a session is that of the one process that keeps it.
OF_SESSIONS = {"server-session-lifecycle"}


@pytest.fixture
async def door(own_folder: Path) -> AsyncIterator[str]:
    """Two gateways on one ledger, each connection to the next one."""
    settings = {
        "CASTMATE_DATABASE_URL": f"sqlite:///{own_folder / 'ledger.sqlite3'}",
        "CASTMATE_STORAGE_URL": f"file://{own_folder / 'pictures'}",
        "CASTMATE_FILES_SECRET": "0123456789abcdef" * 2,
        "CASTMATE_MCP_SESSIONS": "false",
    }
    async with AsyncExitStack() as ends:
        gateways = [Gateway(own_folder / f"gateway-{number}", **settings) for number in (1, 2)]
        for one in gateways:
            await asyncio.to_thread(one.start)
            ends.callback(one.kill)
        relay = Relay(
            [functools.partial(asyncio.open_connection, "127.0.0.1", one.port) for one in gateways]
        )
        await relay.start()
        ends.push_async_callback(relay.stop)
        yield f"http://127.0.0.1:{relay.port}/mcp"


@pytest.mark.timeout(900)
async def test_the_official_checks_pass_whichever_gateway_answers(
    door: str, tmp_path: Path
) -> None:
    for scenario in SCENARIOS:
        if scenario in OF_SESSIONS:
            continue
        checked = await asyncio.create_subprocess_exec(
            NODE / "conformance",
            *("server", "--url", door, "--scenario", scenario, "-o", "out"),
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(100):
            output, _ = await checked.communicate()
        assert checked.returncode == 0, f"{scenario}\n{output.decode()}"
