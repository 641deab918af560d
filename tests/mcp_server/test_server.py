"""An agent sees its character drawn from one call, and can repair every call that fails."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp.types import (
    BlobResourceContents,
    CallToolResult,
    ImageContent,
    ResourceLink,
    TextContent,
    Tool,
)
from PIL import Image

from castmate.errors import BundleCorrupt, Cancelled, Overloaded, Unavailable
from castmate.schema import GenerateRequest
from castmate.settings import Settings
from castmate_mcp.server import GENERATE, build_server
from tests.doubles import FlatClient, StuckClient, encoded, noise, picture

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

SCENE = {"prompt": "waving", "image": "fox.png", "size": "512*640", "seed": 7}


class Agent:
    """One connected agent."""

    def __init__(self, client: Client, drawing: FlatClient) -> None:
        self.client, self.drawing = client, drawing

    async def call(self, **arguments: Any) -> CallToolResult:
        return await self.client.call_tool(GENERATE, SCENE | arguments)

    async def succeed(self, **arguments: Any) -> dict[str, Any]:
        result = await self.call(**arguments)
        assert not result.is_error, result.content
        assert isinstance(result.structured_content, dict)
        return result.structured_content

    async def fail(self, **arguments: Any) -> str:
        result = await self.call(**arguments)
        assert result.is_error
        (text,) = result.content
        assert isinstance(text, TextContent)
        return text.text

    async def tool(self) -> Tool:
        (tool,) = (await self.client.list_tools()).tools
        return tool


@pytest.fixture(params=["auto", "legacy"])
def era(request: pytest.FixtureRequest) -> str:
    """Of the protocol: 2026-07-28 without a handshake, and 2025-11-25 with one."""
    return str(request.param)


@asynccontextmanager
async def connect(era: str, drawing: FlatClient) -> AsyncIterator[Agent]:
    Path("fox.png").write_bytes(picture())
    with anyio.fail_after(20):
        async with Client(build_server(Settings.load(), drawing), mode=era) as client:
            yield Agent(client, drawing)


@pytest.fixture
async def agent(era: str) -> AsyncIterator[Agent]:
    async with connect(era, FlatClient()) as connected:
        yield connected


def decode(data: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    image.load()
    return image


async def test_one_call_gives_the_finished_picture_in_every_form(agent: Agent) -> None:
    result = await agent.call()
    assert not result.is_error
    text, preview, link = result.content
    out = result.structured_content
    assert isinstance(out, dict)
    (image,) = out["images"]
    path = Path(image["file_path"])
    assert out == {
        "status": "completed",
        "images": [
            {
                "image_id": path.stem,
                "image_uri": f"image://{path.stem}",
                "file_path": str(Settings.load().data_dir / f"images/{path.stem}.png"),
                "width": 512,
                "height": 640,
                "seed": 7,
                "has_nsfw": False,
                "mime_type": "image/png",
            }
        ],
        "client": "flat",
        "model": "flat",
        "elapsed_s": 0.01,
        "cost_usd": 0.0,
        "computed_steps": None,
        "warnings": [],
        "next_step": out["next_step"],
    }
    assert "call again" in out["next_step"]
    assert isinstance(text, TextContent)
    assert json.loads(text.text) == out
    assert isinstance(preview, ImageContent)
    assert (preview.mime_type, decode(preview.data).size) == ("image/jpeg", (410, 512))
    assert isinstance(link, ResourceLink)
    assert (link.uri, link.mime_type) == (image["image_uri"], "image/png")
    with Image.open(path) as saved:
        assert (saved.format, saved.size) == ("PNG", (512, 640))


async def test_the_resource_gives_the_whole_picture_as_png_whatever_its_file_is(
    agent: Agent,
) -> None:
    for output_format in ("png", "webp", "jpeg"):
        (image,) = (await agent.succeed(output_format=output_format))["images"]
        assert image["mime_type"] == f"image/{output_format}"
        assert Path(image["file_path"]).suffix == f".{output_format}"
        (content,) = (await agent.client.read_resource(image["image_uri"])).contents
        assert isinstance(content, BlobResourceContents)
        whole = decode(content.blob)
        assert (content.mime_type, whole.format, whole.size) == ("image/png", "PNG", (512, 640))


@pytest.mark.parametrize("image_id", ["img_0123456789abcdef", "fox", "..%2f..%2ffox", "img_*"])
async def test_a_resource_that_does_not_exist_is_a_protocol_error(
    agent: Agent, image_id: str
) -> None:
    with pytest.raises(MCPError) as caught:
        await agent.client.read_resource(f"image://{image_id}")
    assert caught.value.error.code == -32602


async def test_every_step_is_reported_and_the_numbers_grow(agent: Agent) -> None:
    reports: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total, message))

    arguments = SCENE | {"num_inference_steps": 3, "num_images": 2}
    await agent.client.call_tool(GENERATE, arguments, progress_callback=on_progress)
    assert reports == [(step, 6, f"Step {step} of 6") for step in range(7)]


async def test_previews_of_several_pictures_fit_the_smallest_host_together(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    worst = encoded(noise((1024, 1024)))
    monkeypatch.setattr("tests.doubles.encode", lambda *_: worst)
    result = await agent.call(num_images=4)
    previews = [content for content in result.content if isinstance(content, ImageContent)]
    assert len(previews) == 4
    assert sum(len(preview.data) for preview in previews) <= 90_000
    assert len({image["image_id"] for image in (result.structured_content or {})["images"]}) == 4


async def test_what_was_drawn_may_be_drawn_from_by_id_uri_and_path(agent: Agent) -> None:
    (first,) = (await agent.succeed())["images"]
    for name in ("image_id", "image_uri", "file_path"):
        await agent.succeed(image=first[name])
        assert agent.drawing.references[-1].data == Path(first["file_path"]).read_bytes()


async def test_a_data_uri_is_taken(agent: Agent) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(picture(colour='blue')).decode()}"
    await agent.succeed(image=uri)
    assert agent.drawing.references[-1].image.getpixel((0, 0)) == (0, 0, 255)


async def test_the_tool_has_the_fields_of_the_request_with_their_ranges(agent: Agent) -> None:
    tool = await agent.tool()
    assert tool.name == GENERATE
    schema = tool.input_schema
    expected = GenerateRequest.model_json_schema()["properties"]
    described = schema["properties"].pop("image")["description"]
    expected.pop("image")
    assert schema["properties"] == expected
    assert schema["required"] == ["prompt", "image"]
    assert schema["additionalProperties"] is False
    assert f"a path in {Path.cwd()}" in described
    assert all(field["description"] for field in schema["properties"].values())
    assert tool.output_schema
    assert set(tool.output_schema["required"]) >= {"images", "cost_usd", "next_step"}


async def test_the_tool_says_what_when_how_long_what_it_costs_and_what_comes_next(
    agent: Agent,
) -> None:
    tool = await agent.tool()
    assert tool.description
    assert tool.description.startswith("Draw the character of a reference picture in a new scene")
    assert "\n    " not in tool.description
    for said in ("Use it whenever", "Not for", "seconds on a GPU", "free", "Returns", "Next:"):
        assert said in tool.description
    assert tool.annotations
    assert tool.annotations.destructive_hint is False
    assert len(tool.model_dump_json()) < 8000


async def test_the_server_says_who_it_is_and_how_it_is_used(agent: Agent) -> None:
    assert agent.client.instructions
    assert "same picture" in agent.client.instructions
    (template,) = (await agent.client.list_resource_templates()).resource_templates
    assert (template.uri_template, template.mime_type) == ("image://{image_id}", "image/png")


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ({"size": "511*512"}, ["`size`: '511*512' is not allowed; allowed: 'W*H' in pixels"]),
        ({"size": "1024"}, ["`size`: '1024' is not allowed"]),
        ({"size": "axb"}, ["`size`: 'axb' is not allowed"]),
        ({"size": 1024}, ["`size`: 1024 is not allowed"]),
        (
            {"seed": -2},
            ["`seed`: -2 is not allowed; allowed: a whole number from -1 to 9999999999"],
        ),
        ({"seed": "any"}, ["`seed`: 'any' is not allowed; allowed: a whole number"]),
        (
            {"num_images": 5},
            ["`num_images`: 5 is not allowed; allowed: a whole number from 1 to 4"],
        ),
        ({"num_inference_steps": 0}, ["`num_inference_steps`: 0 is not allowed"]),
        ({"guidance_scale": 21}, ["`guidance_scale`: 21 is not allowed; allowed: a number from 0"]),
        ({"subject_scale": True}, ["`subject_scale`: True is not allowed"]),
        ({"output_format": "bmp"}, ["`output_format`: 'bmp' is not allowed; allowed: png, jpeg"]),
        ({"prompt": ""}, ["`prompt`: '' is not allowed; allowed: text of 1..4096 characters"]),
        ({"prompt": "  "}, ["`prompt`: '  ' is not allowed"]),
        ({"prompt": "a" * 10_000}, ["(10000 characters) is not allowed; allowed: text of 1..4096"]),
        (
            {"negative_promt": "rain", "width": 512},
            [
                "`negative_promt`: unknown parameter; allowed: prompt, image, size",
                "did you mean `negative_prompt`?",
                "`width`: unknown parameter",
            ],
        ),
    ],
)
async def test_a_wrong_argument_is_refused_with_what_to_change(
    agent: Agent, arguments: dict[str, Any], lines: list[str]
) -> None:
    told = await agent.fail(**arguments)
    assert told.startswith("Invalid arguments; nothing was generated or charged:\n- ")
    assert told.endswith(f"Correct these and call {GENERATE} again.")
    assert all(line in told for line in lines)
    assert len(told) < 1000
    assert agent.drawing.requests == []


async def test_missing_arguments_are_named(agent: Agent) -> None:
    result = await agent.client.call_tool(GENERATE, {})
    assert result.is_error
    (text,) = result.content
    assert isinstance(text, TextContent)
    assert "- `prompt`: is required" in text.text
    assert "- `image`: is required" in text.text


async def test_a_picture_outside_the_allowed_folders_is_refused_and_they_are_named(
    agent: Agent, tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_bytes(picture())
    Path("link.png").symlink_to(tmp_path / "secret.png")
    for source in (str(tmp_path / "secret.png"), "../secret.png", "link.png", "/etc/passwd"):
        told = await agent.fail(image=source)
        assert "is outside the folders that may be read" in told
        assert str(Path.cwd()) in told
    assert agent.drawing.requests == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("fxo.png", "Pictures in"),
        ("text.png", "is not a picture"),
        ("https://169.254.169.254/a.png", "is not on the public internet"),
        ("http://a.example/a.png", "allowed: https://"),
        ("C:\\fox.png", "is a Windows path"),
    ],
)
async def test_a_bad_reference_is_refused_with_what_to_do(
    agent: Agent, source: str, reason: str
) -> None:
    Path("text.png").write_text("words")
    told = await agent.fail(image=source)
    assert told.startswith("Invalid arguments; nothing was generated or charged:\n- `image`: ")
    assert reason in told


async def test_an_unknown_tool_is_told_with_those_that_exist(agent: Agent) -> None:
    result = await agent.client.call_tool("draw", {})
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    assert result.content[0].text == f"There is no tool 'draw'. Tools: {GENERATE}."


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            Overloaded("8 requests wait already.", retry_after_s=30),
            f"8 requests wait already. Nothing was charged. Call {GENERATE} again in 30 s.",
        ),
        (
            Unavailable("The GPU is down."),
            "The GPU is down. Nothing was charged. The request is fine: "
            f"call {GENERATE} again later.",
        ),
        (
            BundleCorrupt("vae_decoder.onnx was changed."),
            "vae_decoder.onnx was changed. Nothing was charged. No change of arguments helps: ask "
            "the user to run `castmate doctor`.",
        ),
        (
            Cancelled("Stopped after 3 of 28 steps."),
            f"Stopped after 3 of 28 steps. Nothing was charged. Call {GENERATE} again, or ask the "
            "user to run `castmate doctor`.",
        ),
    ],
)
async def test_a_failure_says_why_what_it_cost_and_what_to_do(
    era: str, error: Exception, told: str
) -> None:
    async with connect(era, FlatClient(error=error)) as agent:
        assert await agent.fail() == told


async def test_a_bug_of_ours_keeps_its_text_from_the_agent(
    era: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(era, FlatClient(error=RuntimeError("secret path"))) as agent:
        assert await agent.fail() == f"Error executing tool {GENERATE}"
    assert "secret path" in caplog.text


async def test_a_full_disk_is_told(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("castmate_mcp.store.write_atomically", full)
    assert "cannot be written: No space left on device. Nothing was charged." in await agent.fail()


async def test_a_call_that_the_agent_gives_up_stops_drawing(era: str) -> None:
    stuck = StuckClient()
    async with connect(era, stuck) as agent:
        call = asyncio.create_task(agent.call())
        await stuck.started.wait()
        call.cancel()
        await stuck.cancelled.wait()


async def test_the_server_answers_others_while_one_generates(era: str) -> None:
    stuck = StuckClient()
    async with connect(era, stuck) as agent:
        call = asyncio.create_task(agent.call())
        await stuck.started.wait()
        assert (await agent.tool()).name == GENERATE
        call.cancel()
        await stuck.cancelled.wait()
