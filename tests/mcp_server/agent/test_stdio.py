"""The real process over stdio, as an agent's host starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError
from mcp.types import TextContent
from PIL import Image

from castmate_mcp.agent.server import GENERATE
from tests.doubles import picture

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

HEAVY = ("torch", "diffusers", "transformers")
CONSOLE_SCRIPT = [str(Path(sys.executable).with_name("castmate")), "mcp"]
MODULE = [sys.executable, "-m", "castmate_mcp"]


@asynccontextmanager
async def session(command: list[str], folder: Path, **environment: str) -> AsyncIterator[Client]:
    data_dir = str(folder.parent / "data")
    parameters = StdioServerParameters(
        command=command[0],
        args=[*command[1:], "--data-dir", data_dir],
        env=environment,
        cwd=folder,
    )
    with anyio.fail_after(60):
        async with Client(parameters) as client:
            yield client


@pytest.mark.parametrize("command", [MODULE, CONSOLE_SCRIPT], ids=["module", "console script"])
async def test_a_picture_on_disk_becomes_a_picture_of_the_asked_size(
    command: list[str], own_folder: Path
) -> None:
    (own_folder / "fox.png").write_bytes(picture((200, 300)))
    steps: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    async with session(command, own_folder) as client:
        assert GENERATE in [tool.name for tool in (await client.list_tools()).tools]
        arguments = {
            "prompt": "waving on a beach",
            "image": str(own_folder / "fox.png"),
            "size": "520*512",
            "seed": 7,
            "num_inference_steps": 2,
        }
        result = await client.call_tool(GENERATE, arguments, progress_callback=on_progress)
        assert not result.is_error, result.content
        assert isinstance(result.structured_content, dict)
        (image,) = result.structured_content["images"]
        with Image.open(image["file_path"]) as drawn:
            assert drawn.size == (520, 512)
        assert [*dict.fromkeys(steps)] == [0, 1, 2]
        assert await refusal(client, arguments | {"image": "/etc/passwd"}) == "outside"


@pytest.mark.slow
async def test_a_broken_bundle_is_told_by_the_tool_and_not_by_a_server_that_does_not_start(
    own_folder: Path,
) -> None:
    (own_folder / "fox.png").write_bytes(picture())
    async with session(MODULE, own_folder, CASTMATE_BUNDLE="nope") as client:
        arguments = {"prompt": "waving", "image": "fox.png"}
        result = await client.call_tool(GENERATE, arguments)
        assert result.is_error
        assert isinstance(result.content[0], TextContent)
        assert "There is no bundle 'nope'" in result.content[0].text
        assert "castmate doctor" in result.content[0].text


@pytest.mark.slow
async def test_a_server_that_is_killed_while_it_draws_loses_nothing(own_folder: Path) -> None:
    (own_folder / "fox.png").write_bytes(picture())
    script = 'echo $$ > pid; exec "$0" "$@"'  # the client does not tell whom it started
    command = ["/bin/sh", "-c", script, *MODULE]
    arguments = {"prompt": "waving", "image": "fox.png", "size": "512*512", "seed": 7}
    drawing = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        if progress >= 1:
            drawing.set()

    async with session(command, own_folder, CASTMATE_LEASE_S="1") as client:
        call = asyncio.create_task(
            client.call_tool(GENERATE, arguments, progress_callback=on_progress)
        )
        await drawing.wait()
        (job,) = await listed(client)
        os.kill(int((own_folder / "pid").read_text()), signal.SIGKILL)
        with pytest.raises(MCPError):
            await call
    async with session(MODULE, own_folder, CASTMATE_LEASE_S="1") as client:
        result = await client.call_tool("get_job", {"job_id": job["id"]})
        assert not result.is_error, result.content
        assert isinstance(result.structured_content, dict)
        assert result.structured_content["status"] == "completed"
        with Image.open(result.structured_content["images"][0]["file_path"]) as drawn:
            assert drawn.size == (512, 512)
        assert [done["id"] for done in await listed(client)] == [job["id"]]


async def listed(client: Client) -> list[dict[str, Any]]:
    result = await client.call_tool("list_library", {"kind": "jobs"})
    assert isinstance(result.structured_content, dict)
    items: list[dict[str, Any]] = result.structured_content["items"]
    return items


async def refusal(client: Client, arguments: dict[str, Any]) -> str:
    result = await client.call_tool(GENERATE, arguments)
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    return "outside" if "outside the folders" in result.content[0].text else result.content[0].text


@pytest.mark.slow
def test_the_server_loads_no_torch_and_ends_when_its_input_ends() -> None:
    code = (
        "import atexit, sys; from castmate.cli import main;"
        "atexit.register(lambda: print('MODULES', *sys.modules, file=sys.stderr)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "mcp"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    loaded = set(done.stderr.partition("MODULES ")[2].split())
    assert (done.returncode, done.stdout) == (0, "")
    assert {"mcp", "onnxruntime", "castmate_mcp.agent.server"} <= loaded
    assert not loaded.intersection(HEAVY)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [("CASTMATE_THREADS", "many"), ("CASTMATE_DATABASE_URL", "mysql://host/name")],
)
def test_a_wrong_setting_ends_the_server_with_the_reason_and_no_traceback(
    name: str, value: str, own_folder: Path
) -> None:
    environment = {name: value, "CASTMATE_DATA_DIR": str(own_folder)}
    done = subprocess.run([*MODULE], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {name}: ")
