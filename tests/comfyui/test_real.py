"""The nodes in a real ComfyUI, through `/prompt`, `/ws` and its page in a browser.

`CASTMATE_COMFYUI` is its folder, `CASTMATE_COMFYUI_PYTHON` what runs its main.py (by default the
venv in it). Its models, inputs and outputs are not touched: everything is in a folder of the test.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from benchmarks import server_process
from benchmarks.server_process import ServerProcess, castmate_serve, running
from castmate.comfyui import nodes, place
from tests.comfyui import comfy_double
from tests.mcp_server.running import REFERENCE

pytestmark = [pytest.mark.comfyui, pytest.mark.anyio, pytest.mark.timeout(300)]
WORKFLOWS = sorted((nodes() / "example_workflows").glob("*.json"))
PAGE = Path(__file__).with_name("page.mjs")
SCENE: dict[str, Any] = {"prompt": "waving", "width": 512, "height": 512, "num_inference_steps": 8}
ENDS = ("execution_success", "execution_error", "execution_interrupted")


@dataclass
class Run:
    """What ComfyUI told of one prompt."""

    prompt_id: str = ""
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    previews: int = 0
    interrupted_at: float = 0
    images: list[dict[str, str]] = field(default_factory=list)

    @property
    def end(self) -> str:
        return self.events[-1][0]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for name, data in self.events if name == kind]


@dataclass
class Comfy:
    """A ComfyUI and the Castmate that it calls."""

    process: ServerProcess
    base: Path
    castmate: ServerProcess

    async def post(self, path: str, **options: Any) -> tuple[int, Any]:
        url = self.process.url + path
        async with aiohttp.ClientSession() as http, http.post(url, **options) as answer:
            return answer.status, json.loads(await answer.text() or "null")

    async def get(self, path: str) -> Any:
        async with aiohttp.ClientSession() as http, http.get(self.process.url + path) as answer:
            assert answer.status == 200
            return await answer.json()

    async def predictions(self) -> list[Any]:
        url, page = f"{self.castmate.url}/api/v3/predictions", {"page_size": 100}
        async with aiohttp.ClientSession() as http, http.post(url, json=page) as answer:
            items: list[Any] = (await answer.json())["data"]["items"]
            return items

    async def run(self, graph: dict[str, Any], *, interrupt: bool = False) -> Run:
        """Queue a graph and listen until it ends."""
        run, client = Run(), uuid4().hex
        url = f"{self.process.url}/ws?clientId={client}"
        async with (
            asyncio.timeout(120),
            aiohttp.ClientSession() as http,
            http.ws_connect(url) as stream,
        ):
            flags = {"supports_preview_metadata": True}  # as its page says
            await stream.send_json({"type": "feature_flags", "data": flags})
            body = {"prompt": graph, "client_id": client}
            status, answer = await self.post("/prompt", json=body)
            assert status == 200, answer
            run.prompt_id = answer["prompt_id"]
            async for message in stream:
                if message.type == aiohttp.WSMsgType.BINARY:
                    run.previews += 1
                    continue
                data = json.loads(message.data)
                run.events.append((data["type"], data["data"]))
                if interrupt and _steps(run) >= 3:
                    interrupt = False
                    await self.post("/interrupt")
                    run.interrupted_at = _steps(run)
                if data["type"] in ENDS and data["data"]["prompt_id"] == run.prompt_id:
                    break
        history: Any = {}
        while run.prompt_id not in history:
            history = await self.get(f"/history/{run.prompt_id}")
        outputs = history[run.prompt_id]["outputs"]
        run.images = [image for one in outputs.values() for image in one.get("images", ())]
        return run


def _steps(run: Run) -> float:
    nodes = [node for data in run.of("progress_state") for node in data["nodes"].values()]
    return max((node["value"] for node in nodes if node["max"] > 1), default=0)


@contextmanager
def start(base: Path, castmate: ServerProcess) -> Iterator[ServerProcess]:
    """A ComfyUI with a folder of its own, which may take minutes to start on a busy machine."""
    folder = Path(os.environ["CASTMATE_COMFYUI"]).resolve()
    python = os.environ.get("CASTMATE_COMFYUI_PYTHON") or str(folder / "venv/bin/python")
    command = [python, str(folder / "main.py"), "--cpu", "--listen", "127.0.0.1"]
    command += [
        "--port",
        str(_free_port()),
        "--disable-auto-launch",
        "--disable-api-nodes",
        "--base-directory",
        str(base),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_process, "START_S", 180.0)
        with running(command, base, CASTMATE_URL=castmate.url) as process:
            yield process


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comfy]:
    base = tmp_path_factory.mktemp("comfyui")
    for name in ("custom_nodes", "input", "output", "models", "user", "temp"):
        (base / name).mkdir()
    place(nodes(), base)
    (base / "input/example.png").write_bytes(REFERENCE.read_bytes())
    with castmate_serve(base / "castmate") as castmate, start(base, castmate) as process:
        yield Comfy(process, base, castmate)


async def uploaded(comfy: Comfy) -> str:
    form = aiohttp.FormData()
    form.add_field("overwrite", "true")
    form.add_field("image", REFERENCE.read_bytes(), filename="mira.png", content_type="image/png")
    status, answer = await comfy.post("/upload/image", data=form)
    assert status == 200
    return str(answer["name"])


async def graph(comfy: Comfy, seed: int, **values: Any) -> dict[str, Any]:
    inputs = {"image": ["1", 0], "seed": seed} | SCENE | values
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": await uploaded(comfy)}},
        "2": {"class_type": "CastmateGenerate", "inputs": inputs},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "t"}},
    }


def page(comfy: Comfy, command: str, path: Path) -> Any:
    """What ComfyUI's page makes of a workflow."""
    words = [str(Path(sys.executable).with_name("node")), str(PAGE), comfy.process.url, command]
    done = subprocess.run([*words, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_double_is_as_the_real_api_is() -> None:
    folder = Path(os.environ["CASTMATE_COMFYUI"]) / "comfy_api/latest"
    tree = ast.parse((folder / "_io.py").read_text())
    for name in ("Int", "Float", "String", "Boolean", "Combo"):
        real = _arguments(tree, name, "Input", "__init__")
        ours = inspect.signature(getattr(comfy_double, name).Input).parameters
        named = [one for one, kind in ours.items() if kind.kind is kind.POSITIONAL_OR_KEYWORD]
        assert real[1] == named[0] == "id"
        assert set(named) <= set(real), name
    for base, name in ((comfy_double.Image.Input, "Input"), (comfy_double.Image.Output, "Output")):
        parameters = inspect.signature(base).parameters
        named = [one for one, kind in parameters.items() if kind.kind is not kind.VAR_KEYWORD]
        assert set(named) <= set(_arguments(tree, name, "__init__"))
    (schema,) = (one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == "Schema")
    fields = {
        str(getattr(one.target, "id", "")) for one in schema.body if isinstance(one, ast.AnnAssign)
    }
    assert set(inspect.signature(comfy_double.Schema).parameters) <= fields
    real = _arguments(
        ast.parse((folder / "__init__.py").read_text()),
        *("ComfyAPI_latest", "Execution", "set_progress"),
    )
    assert [*inspect.signature(comfy_double.Execution.set_progress).parameters] == real[:5]


def _arguments(tree: Any, *path: str) -> list[str]:
    for name in path:
        (tree,) = (one for one in tree.body if getattr(one, "name", "") == name)
    return [one.arg for one in tree.args.args]


async def test_the_nodes_are_defined_with_the_ranges_of_the_server(comfy: Comfy) -> None:
    known = await comfy.get("/object_info")
    ours = {name for name in known if name.startswith("Castmate")}
    assert len(ours) == 7
    optional = known["CastmateGenerate"]["input"]["optional"]
    assert optional["width"][1] | {"min": 512, "max": 1536} == optional["width"][1]
    assert optional["subject_scale"][1]["max"] == 2
    templates = await comfy.get("/workflow_templates")
    assert sorted(templates["castmate"]) == [path.stem for path in WORKFLOWS]
    words = await comfy.get("/i18n")
    assert words["zh"]["nodeDefs"]["CastmateGenerate"]["inputs"]["prompt"]["name"] == "提示词"


async def test_a_picture_is_drawn_with_progress_and_a_preview(comfy: Comfy) -> None:
    asked = await graph(comfy, 1)
    load = {"class_type": "CastmateLoadPicture", "inputs": {"id": ["2", 2]}}
    show = {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}}
    run = await comfy.run(asked | {"4": load, "5": show})
    assert run.end == "execution_success"
    assert _steps(run) == SCENE["num_inference_steps"]
    assert run.previews >= 1
    saved, loaded = sorted(run.images, key=lambda image: image["type"])
    picture = (comfy.base / "output" / saved["filename"]).stat().st_size
    assert picture > 10_000
    assert loaded["type"] == "temp"
    print(f"steps told {_steps(run):.0f}, previews {run.previews}")


async def test_a_batch_is_one_prediction_with_a_preview_for_each(comfy: Comfy) -> None:
    before = len(await comfy.predictions())
    run = await comfy.run(await graph(comfy, 2, num_images=3))
    assert (run.end, len(run.images)) == ("execution_success", 3)
    assert run.previews >= 3
    assert _steps(run) == 3 * SCENE["num_inference_steps"]
    assert len(await comfy.predictions()) == before + 1


async def test_a_second_run_is_cached_and_asks_for_nothing(comfy: Comfy) -> None:
    await comfy.run(await graph(comfy, 3))
    before = len(await comfy.predictions())
    run = await comfy.run(await graph(comfy, 3))
    assert run.end == "execution_success"
    assert "2" in run.of("execution_cached")[0]["nodes"]
    assert len(await comfy.predictions()) == before


async def test_an_interrupt_stops_the_server_within_a_step(comfy: Comfy) -> None:
    # Steps as long as those of a GPU with the full-size model, not the milliseconds of a small one.
    long = {"num_images": 4, "num_inference_steps": 50, "width": 1536, "height": 1536}
    began = time.monotonic()
    run = await comfy.run(await graph(comfy, 4, **long), interrupt=True)
    assert run.end == "execution_interrupted"
    assert _steps(run) <= run.interrupted_at + 1
    newest = (await comfy.predictions())[0]
    async with asyncio.timeout(20):
        while newest["status"] in ("created", "processing"):
            newest = (await comfy.predictions())[0]
    assert "Cancelled" in newest["error"]
    steps = f"at step {run.interrupted_at:.0f}, stopped at {_steps(run):.0f} of 200"
    print(f"interrupted {steps}, {time.monotonic() - began:.1f} s; the server: {newest['error']}")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"width": 100}, "smaller than min of 512"),
        ({"prompt": "  "}, "write what the character does"),
        ({"cache": "some"}, "Value not in list"),
    ],
)
async def test_what_is_wrong_with_a_node_is_told_before_it_runs(
    comfy: Comfy, values: dict[str, Any], expected: str
) -> None:
    status, answer = await comfy.post("/prompt", json={"prompt": await graph(comfy, 5, **values)})
    assert status == 400
    (error,) = answer["node_errors"]["2"]["errors"]
    assert expected in f"{error['message']} {error['details']}"


async def test_a_server_that_is_not_there_is_an_error_of_the_node(comfy: Comfy) -> None:
    asked = await graph(comfy, 6, server=["4", 0])
    asked["4"] = {"class_type": "CastmateServer", "inputs": {"url": "http://127.0.0.1:9"}}
    run = await comfy.run(asked)
    (error,) = run.of("execution_error")
    assert error["node_id"] == "2"
    assert "Start one with `castmate serve`" in error["exception_message"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
async def test_an_example_workflow_runs_and_its_api_form_keeps_every_value(
    comfy: Comfy, path: Path
) -> None:
    as_api = await asyncio.to_thread(page, comfy, "prompt", path)
    for node in json.loads(path.read_text())["nodes"]:
        named = [one["widget"]["name"] for one in node["inputs"] if "widget" in one]
        inputs = as_api[str(node["id"])]["inputs"]
        if "Castmate" in node["type"]:
            values = [one for one in node["widgets_values"] if one != "randomize"]
            assert [inputs[name] for name in named] == values
    run = await comfy.run(as_api)
    assert (run.end, len(run.images) > 0) == ("execution_success", True)


async def test_after_a_restart_the_same_workflow_finds_its_job_again(
    comfy: Comfy, tmp_path: Path
) -> None:
    base = tmp_path / "again"
    for name in ("custom_nodes", "input", "output", "models", "user", "temp"):
        (base / name).mkdir(parents=True)
    place(nodes(), base)
    before = len(await comfy.predictions())
    with start(base, comfy.castmate) as process:
        other = Comfy(process, base, comfy.castmate)
        asked = await graph(other, 7, num_images=4, num_inference_steps=50)
        status, _ = await other.post("/prompt", json={"prompt": asked})
        assert status == 200
        async with asyncio.timeout(30):
            while len(await comfy.predictions()) == before:
                await asyncio.sleep(0.05)
        process.kill()
    with start(base, comfy.castmate) as process:
        other = Comfy(process, base, comfy.castmate)
        run = await other.run(asked)
    assert (run.end, len(run.images)) == ("execution_success", 4)
    assert len(await comfy.predictions()) == before + 1
