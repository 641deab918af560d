"""One call draws a series of one character: its pictures, its sheet, and what failed of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from mcp.types import ImageContent, ResourceLink
from PIL import Image

from castmate.errors import CastmateError
from castmate.jobs.budget import totals
from castmate.schema import GenerateRequest, GenerateResult
from tests.doubles import FlatClient, SlowClient
from tests.mcp_server.agent.test_spending import PAID, User, clients, ready
from tests.mcp_server.conftest import Agent, Connect, decode

pytestmark = pytest.mark.anyio

SERIES: dict[str, Any] = {"scenes": ["waving", "reading", "asleep"], "image": "fox.png"}


async def draw(agent: Agent, **arguments: Any) -> dict[str, Any]:
    return await agent.succeed("draw_scenes", **SERIES | {"size": "512*640"} | arguments)


class Unlucky(FlatClient):
    """Cannot draw a scene as long as it is to fail."""

    fails = True

    async def generate(self, request: GenerateRequest, *args: Any, **kw: Any) -> GenerateResult:
        if self.fails and "reading" in request.prompt:
            raise CastmateError("The book is missing.")
        return await super().generate(request, *args, **kw)


async def test_one_call_gives_every_picture_with_its_scene_and_one_sheet(agent: Agent) -> None:
    out = await draw(agent, style_words="ink", seed=5)
    assert out["status"] == "completed"
    assert [(one["scene"], one["caption"], one["seed"]) for one in out["images"]] == [
        (number, text, 5) for number, text in enumerate(SERIES["scenes"], 1)
    ]
    assert sorted(one.prompt for one in agent.drawing.requests) == sorted(
        f"{text}, ink" for text in SERIES["scenes"]
    )
    with Image.open(out["sheet"]["file_path"]) as sheet:
        assert sheet.size == (out["sheet"]["width"], out["sheet"]["height"])
    assert "file_path of the sheet" in out["next_step"]


async def test_the_model_sees_the_sheet_and_reaches_every_picture(agent: Agent) -> None:
    result = await agent.call("draw_scenes", **SERIES)
    (shown,) = [one for one in result.content if isinstance(one, ImageContent)]
    assert len(shown.data) <= 90_000
    links = [one.uri for one in result.content if isinstance(one, ResourceLink)]
    assert len(links) == 4
    assert isinstance(result.structured_content, dict)
    sheet_id = result.structured_content["sheet"]["image_id"]
    (seen,) = (await agent.call("view_image", image_id=sheet_id)).content
    assert isinstance(seen, ImageContent)
    assert decode(seen.data).width == 768
    (whole,) = (await agent.client.read_resource(links[0])).contents
    assert getattr(whole, "blob", "")


async def test_a_failed_scene_loses_no_other_and_the_same_call_draws_it_alone(
    connect: Connect,
) -> None:
    drawing = Unlucky()
    async with connect(drawing) as agent:
        out = await draw(agent)
        assert [one["scene"] for one in out["images"]] == [1, 3]
        (failed,) = out["failed"]
        assert (failed["scene"], failed["caption"]) == (2, "reading")
        assert "The book is missing" in failed["why"]
        assert "Not drawn: scene 2; the same draw_scenes call" in out["next_step"]
        drawing.fails = False
        again = await draw(agent)
        assert again["job_id"] == out["job_id"]
        assert (len(again["images"]), again["failed"]) == (3, [])
        assert again["sheet"]["file_path"] != out["sheet"]["file_path"]
        assert len(drawing.requests) == 3


async def test_a_series_of_which_nothing_could_be_drawn_is_an_error(connect: Connect) -> None:
    async with connect(FlatClient(error=CastmateError("No ink."))) as agent:
        message = await agent.fail("draw_scenes", **SERIES)
        assert "Scene 1: No ink." in message
        assert "draw_scenes" in message


async def test_a_series_is_one_job_that_get_job_waits_for_and_cancel_job_stops(
    connect: Connect,
) -> None:
    slow = SlowClient()
    async with connect(slow, hold_s=0) as agent:
        out = await draw(agent)
        assert (out["status"], out["images"]) == ("running", [])
        assert out["progress"].startswith("0 of 3 scenes drawn")
        assert "get_job" in out["next_step"]
        same = await draw(agent)
        assert (same["job_id"], same["deduplicated"]) == (out["job_id"], True)
        stopped = await agent.succeed("cancel_job", job_id=out["job_id"])
        assert (stopped["status"], stopped["charged"]) == ("cancelled", False)
        slow.may_end.set()
        again = await draw(agent)
        assert again["job_id"] == out["job_id"]
        done = await agent.succeed("get_job", job_id=out["job_id"], wait_seconds=20)
        assert len(done["images"]) == 3
        resource = await agent.client.read_resource(f"job://{out['job_id']}")
        data = json.loads(getattr(resource.contents[0], "text", ""))
        assert len(data["images"]) == 3


async def test_progress_is_told_over_all_scenes(agent: Agent) -> None:
    reports: list[tuple[float, float | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total))

    await agent.client.call_tool("draw_scenes", SERIES, progress_callback=on_progress)
    assert reports[-1] == (84, 84)
    assert [one[0] for one in reports] == sorted({one[0] for one in reports})


async def test_the_price_of_all_scenes_is_asked_once_and_the_budget_counts_every_one(
    connect: Connect,
) -> None:
    user = User()
    async with connect(clients(), **PAID, client_elicitation_callback=user) as agent:
        out = await draw(await ready(agent))
        assert len(user.asked) == 1
        assert "$0.75" in user.asked[0]
        assert out["cost_usd"] == 0.75
        spent = await agent.castmate.budget.spending(since="2000-01-01")
        assert totals(spent, lambda one: one.key_name) == {"local": 0.75}


async def test_an_agent_that_cannot_ask_is_told_the_price_of_all_scenes(connect: Connect) -> None:
    async with connect(clients(), **PAID) as agent:
        message = await (await ready(agent)).fail("draw_scenes", **SERIES)
        assert "call draw_scenes again with accept_cost_usd 0.75" in message
        out = await draw(agent, accept_cost_usd=0.75)
        assert out["cost_usd"] == 0.75


async def test_letters_that_no_font_has_are_told(agent: Agent) -> None:
    odd = "\U00013000 a hieroglyph"
    out = await draw(agent, scenes=["waving", odd])
    assert any("caption 2" in warning for warning in out["warnings"])
    assert out["images"][1]["caption"] == odd


async def test_the_sheet_can_be_named_like_a_picture(agent: Agent) -> None:
    out = await draw(agent)
    async with asyncio.timeout(20):
        drawn = await agent.draw(image=out["sheet"]["file_path"])
    with Image.open(drawn["file_path"]) as image:
        assert image.size == (512, 640)
