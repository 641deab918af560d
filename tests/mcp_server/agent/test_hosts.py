"""Hosts lose parts of what we say; the finished picture is reached by what is left."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from mcp.types import (
    BlobResourceContents,
    CallToolResult,
    ImageContent,
    ResourceLink,
    TextContent,
)
from PIL import Image

from castmate_mcp.settings import ServerSettings
from tests.doubles import FlatClient, SlowClient
from tests.mcp_server.conftest import Agent, Connect

pytestmark = pytest.mark.anyio


def seen(result: CallToolResult, drops: str) -> tuple[str, list[bytes]]:
    """What the model gets of a result: everything as one text, and the pictures."""
    texts, pictures = [], []
    for content in result.content:
        if isinstance(content, TextContent) and drops != "text":
            texts.append(content.text)
        elif isinstance(content, ImageContent) and drops != "images":
            pictures.append(base64.b64decode(content.data))
        elif isinstance(content, ResourceLink) and drops != "links":
            texts.append(content.uri)
    if drops != "structured content" and result.structured_content is not None:
        texts.append(json.dumps(result.structured_content))
    return "\n".join(texts), pictures


def is_picture(data: bytes, side: int) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        return max(image.size) == side


@pytest.mark.parametrize("drops", ["images", "text", "structured content", "links"])
async def test_whatever_a_host_drops_the_picture_is_seen_opened_and_shown(
    agent: Agent, drops: str
) -> None:
    text, pictures = seen(await agent.call(), drops)
    # 1. The whole picture, by path and by resource.
    path = re.search(r'"file_path":\s*"([^"]+)"', text)
    assert path
    assert is_picture(Path(path[1]).read_bytes(), 640)
    uri = re.search(r"image://[\w-]+", text)
    assert uri
    (content,) = (await agent.client.read_resource(uri[0])).contents
    assert isinstance(content, BlobResourceContents)
    assert is_picture(base64.b64decode(content.blob), 640)
    # 2. What the model sees: at once, or by the tool that the text names.
    if not pictures:
        tool = re.search(r"call (view_image) with its image_id", text)
        image_id = re.search(r"img_[\w-]+", text)
        assert tool
        assert image_id
        _, pictures = seen(await agent.call(tool[1], image_id=image_id[0]), "structured content")
    assert is_picture(pictures[0], 512 if drops != "images" else 640)


async def read_and_follow(agent: Agent, text: str) -> dict[str, Any]:
    """What a model does with `next_step`, and nothing else."""
    step = re.search(r"call (\w+) with (\w+) (\S+) to wait", text)
    assert step, text
    return await agent.succeed(step[1], **{step[2]: step[3]})


async def test_a_host_that_cuts_at_45_s_gets_its_answer_before(connect: Connect) -> None:
    slow = SlowClient()
    async with connect(slow, hold_s=0.2) as agent:
        assert ServerSettings.model_fields["hold_s"].default < 45
        async with asyncio.timeout(5):  # the host's patience, scaled down like hold_s
            text, _ = seen(await agent.call(), "structured content")
        slow.may_end.set()
        done = await read_and_follow(agent, text)
        assert done["status"] == "completed"
        assert len(slow.requests) == 1


async def test_a_host_that_disconnects_finds_its_picture_from_the_library(
    connect: Connect,
) -> None:
    slow = SlowClient()
    async with connect(slow) as agent:
        call = asyncio.create_task(agent.call())
        await slow.started.wait()
        call.cancel()
    async with connect(FlatClient()) as agent:
        jobs = await agent.succeed("list_library", kind="jobs")
        assert "get_job gives the pictures" in jobs["next_step"]
        done = await agent.succeed("get_job", job_id=jobs["items"][0]["id"])
        assert Path(done["images"][0]["file_path"]).is_file()


async def test_a_host_that_calls_again_after_its_timeout_pays_for_one_picture(
    connect: Connect,
) -> None:
    slow = SlowClient()
    async with connect(slow) as agent:
        first = asyncio.create_task(agent.call())
        await slow.started.wait()
        first.cancel()
        again = await agent.succeed(wait_seconds=0)
        assert (again["status"], again["deduplicated"]) == ("running", True)
        slow.may_end.set()
        done = await agent.succeed("get_job", job_id=again["job_id"])
        assert done["status"] == "completed"
        assert len(slow.requests) == 1
