"""A storyboard whose server is killed in the middle is finished by the next one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from PIL import Image

from benchmarks.server_process import castmate_serve
from castmate.engines.bundle import locate

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]

CASTMATE = str(Path(sys.executable).with_name("castmate"))
MIRA = locate("toon") / "references/mira.png"
SETTINGS = {"CASTMATE_LEASE_S": "2", "CASTMATE_HOLD_S": "0"}
SCENES = ["waving on the beach", "running", "jumping", "sitting", "in the snow", "in space"]
Kill = Callable[[], None]


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


@asynccontextmanager
async def over_stdio(folder: Path) -> AsyncIterator[tuple[Client, Kill]]:
    noted = folder / "pid"
    started = f"echo $$ > {noted}; exec {CASTMATE} mcp --data-dir {folder / 'data'}"
    server = StdioServerParameters(command="sh", args=["-c", started], env=SETTINGS, cwd=folder)
    async with Client(server) as client:
        yield client, lambda: os.kill(int(noted.read_text()), signal.SIGKILL)


@asynccontextmanager
async def over_http(folder: Path) -> AsyncIterator[tuple[Client, Kill]]:
    with castmate_serve(folder / "data", CASTMATE_IMAGE_ROOTS=str(folder), **SETTINGS) as server:
        async with Client(f"{server.url}/mcp") as client:
            yield client, server.kill


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(120):
        while not await look():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("connected", [over_stdio, over_http], ids=["stdio", "http"])
async def test_six_scenes_by_one_call_survive_a_kill_in_the_middle(
    connected: Any, tmp_path: Path
) -> None:
    (tmp_path / "mira.png").write_bytes(MIRA.read_bytes())
    job_id, before = "", list[dict[str, Any]]()
    try:
        async with connected(tmp_path) as (client, kill):
            call = {"scenes": SCENES, "image": str(tmp_path / "mira.png"), "size": "512*512"}
            job_id = (await ask(client, "draw_scenes", **call))["job_id"]

            async def two_are_drawn() -> bool:
                before[:] = (await ask(client, "get_job", job_id=job_id, wait_seconds=0))["images"]
                return len(before) >= 2

            await until(two_are_drawn)
            kill()
    except BaseExceptionGroup:
        pass  # the client of a server that is gone
    assert 2 <= len(before) < 6
    async with connected(tmp_path) as (client, _):

        async def is_over() -> bool:
            return (await ask(client, "get_job", job_id=job_id, wait_seconds=20))[
                "status"
            ] == "completed"

        await until(is_over)
        done = await ask(client, "get_job", job_id=job_id)
    assert [image["caption"] for image in done["images"]] == SCENES
    assert done["failed"] == []
    assert [image["image_id"] for image in before] == [
        image["image_id"] for image in done["images"] if image["scene"] in scenes_of(before)
    ]
    for image in (*done["images"], done["sheet"]):
        with Image.open(image["file_path"]) as picture:
            assert picture.size == (image["width"], image["height"])


def scenes_of(images: list[dict[str, Any]]) -> list[int]:
    return [image["scene"] for image in images]
