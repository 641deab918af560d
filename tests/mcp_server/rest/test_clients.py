"""WaveSpeed's own clients, as they are published, against the real server: `make clients`."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.types import TextContent
from PIL import Image

from benchmarks.server_process import ServerProcess, castmate_serve, create_key
from tests.mcp_server.running import INPUTS, REFERENCE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
CLIENTS = ROOT / ".clients"
DRIVERS = ROOT / "tests/clients"
NODE = CLIENTS / "python/bin"
PYTHON = CLIENTS / "python/bin/python"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, str]]:
    """The server with the model that ships, and a key."""
    assert (CLIENTS / ".installed").exists(), "run `make clients`"
    data_dir = tmp_path_factory.mktemp("clients") / "data"
    with castmate_serve(data_dir) as running:
        yield running, create_key(data_dir, "ann")


def drive(command: Sequence[str | Path], folder: Path, **environment: str) -> Any:
    """The JSON that a client printed: all of its output, or the last line."""
    path = f"{NODE}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": path, "HOME": str(folder)} | environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    whole = done.stdout.strip()
    return json.loads(whole if whole.startswith("{\n") else whole.splitlines()[-1])


def check_pictures(outputs: list[str], count: int = 1) -> None:
    """Each is a picture of the size that was asked for, and more than one colour."""
    assert len(outputs) == count
    for url in outputs:
        answer = httpx2.get(url, trust_env=False)
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.size == (512, 512)
            assert len(image.convert("RGB").resize((64, 64)).getcolors(4096) or []) > 50


@pytest.mark.parametrize("version", ["2.0.5", "1.0.10"])
def test_the_python_client_uploads_and_draws(
    server: tuple[ServerProcess, str], tmp_path: Path, version: str
) -> None:
    running, key = server
    older = {} if version == "2.0.5" else {"PYTHONPATH": str(CLIENTS / "python-old")}
    command: list[str | Path] = [PYTHON, DRIVERS / "drive.py", running.url, key, REFERENCE]
    report = drive(command, tmp_path, WAVESPEED_API_KEY=key, **older)
    assert report["version"] == version
    check_pictures(report["outputs"] + report["sync"], 2)
    assert "`num_images`" in report["refused"]


def test_the_langchain_tool_draws(server: tuple[ServerProcess, str], tmp_path: Path) -> None:
    running, key = server
    command: list[str | Path] = [
        PYTHON,
        DRIVERS / "drive.py",
        running.url,
        key,
        REFERENCE,
        "langchain",
    ]
    check_pictures(drive(command, tmp_path, WAVESPEED_API_KEY=key)["outputs"])


@pytest.mark.parametrize("package", ["wavespeed", "wavespeed-old"])
def test_the_javascript_client_uploads_and_draws(
    server: tuple[ServerProcess, str], package: str
) -> None:
    running, key = server
    command: list[str | Path] = [
        NODE / "node",
        DRIVERS / "drive.mjs",
        package,
        running.url,
        key,
        REFERENCE,
    ]
    report = drive(command, CLIENTS)
    check_pictures(report["outputs"] + report["sync"], 2)
    assert "num_images" in report["refused"]


@pytest.mark.anyio
async def test_the_mcp_server_finds_the_model_uploads_a_file_and_draws(
    server: tuple[ServerProcess, str], tmp_path: Path
) -> None:
    running, key = server
    parameters = StdioServerParameters(
        command=str(NODE / "node"),
        args=[str(CLIENTS / "node_modules/@wavespeed/mcp/dist/index.js")],
        env={"HOME": str(tmp_path), "WAVESPEED_BASE_URL": running.url, "WAVESPEED_API_KEY": key},
        cwd=tmp_path,
    )
    with anyio.fail_after(100):
        async with Client(parameters) as client:

            async def call(tool: str, **arguments: Any) -> Any:
                result = await client.call_tool(tool, arguments)
                (content,) = result.content
                assert isinstance(content, TextContent)
                assert not result.is_error, content.text
                return json.loads(content.text)

            (model,) = (await call("list_models", query="character"))["models"]
            schema = await call("get_model_schema", model=model["model_id"])
            assert schema["required"] == ["prompt", "image"]
            assert (await call("get_balance"))["balance"] == 5.0
            inputs = INPUTS | {"image": f"@{REFERENCE}"}
            price = await call("get_price", model=model["model_id"], input=inputs)
            assert price["price"] == 0
            drawn = await call("run_model", model=model["model_id"], input=inputs)
            check_pictures(drawn["outputs"])
            assert (await call("get_prediction", id=drawn["id"]))["status"] == "completed"


def test_the_command_line_draws_lists_and_deletes(
    server: tuple[ServerProcess, str], tmp_path: Path
) -> None:
    running, key = server
    settings = tmp_path / ".config/wavespeed-nodejs/config.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"baseUrl": running.url, "apiKey": key}))
    (tmp_path / "inputs.json").write_text(json.dumps(INPUTS))
    cli: list[str | Path] = [NODE / "node", CLIENTS / "node_modules/@wavespeed/cli/dist/cli.js"]
    environment = {"XDG_CONFIG_HOME": str(tmp_path / ".config"), "NO_COLOR": "1"}
    uploaded = drive([*cli, "upload", REFERENCE, "--json"], tmp_path, **environment)
    given = ["--input-file", "inputs.json", "--input", f"image={uploaded['url']}", "--json"]
    drawn = drive([*cli, "run", "wavespeed-ai/instant-character", *given], tmp_path, **environment)
    check_pictures(drawn["outputs"])
    (newest, *_) = drive([*cli, "history", "--json"], tmp_path, **environment)["items"]
    assert newest["outputs"] == drawn["outputs"]
    deleted = drive([*cli, "delete", newest["id"], "--yes", "--json"], tmp_path, **environment)
    assert deleted == {"deleted": [newest["id"]]}
    listed = drive([*cli, "history", "--json"], tmp_path, **environment)
    assert newest["id"] not in json.dumps(listed)
