"""Characters by their names, wherever an id goes, and what agents do to the library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mcp.types import ImageContent

from tests.doubles import picture
from tests.mcp_server.conftest import Agent

pytestmark = pytest.mark.anyio


async def save(agent: Agent, name: str, *colours: str) -> str:
    for colour in colours:
        Path(f"{colour}.png").write_bytes(picture(colour=colour))
    sources = [f"{colour}.png" for colour in colours]
    saved = await agent.succeed("create_character", name=name, references=sources)
    return str(saved["character_id"])


async def test_a_character_is_drawn_by_its_name(agent: Agent) -> None:
    await save(agent, "Zo\u00eb", "red", "blue")
    for text in ("Zo\u00eb", "zoe\u0308"):
        await agent.succeed(image=text, seed=1)
    await agent.succeed(image="zo\u00eb/2", seed=1)
    colours = [one.image.getpixel((0, 0)) for one in agent.drawing.references]
    assert colours[0] == (255, 0, 0)
    assert colours[-1] == (0, 0, 255)
    await agent.succeed("draw_scenes", image="ZO\u00cb", scenes=["waving"])


async def test_an_unknown_or_ambiguous_name_says_what_to_do(agent: Agent) -> None:
    first = await save(agent, "Mira", "red")
    second = await save(agent, "mira", "blue")
    message = await agent.fail(image="Mira")
    assert first in message
    assert second in message
    message = await agent.fail(image="Mirra")
    assert "no saved character is called 'Mirra'" in message
    assert "The nearest: `" in message


async def test_a_view_of_a_character_shows_its_references(agent: Agent) -> None:
    saved = await save(agent, "Fox", "red", "blue")
    for text in (saved, "fox"):
        result = await agent.call("view_image", image_id=text)
        assert not result.is_error, result.content
        assert [type(one) for one in result.content] == [ImageContent, ImageContent]
    (one,) = (await agent.call("view_image", image_id="Fox/2")).content
    assert isinstance(one, ImageContent)
    assert "no saved character" in await agent.fail("view_image", image_id="Wolf")


async def test_a_deleted_picture_is_gone_everywhere_and_comes_back(agent: Agent) -> None:
    drawn = await agent.succeed()
    image_id = drawn["images"][0]["image_id"]
    gone = await agent.succeed("edit_library", id=image_id, action="delete")
    assert "restore" in gone["next_step"]
    assert (await agent.succeed("list_library"))["items"] == []
    assert "no finished picture" in await agent.fail("view_image", image_id=image_id)
    assert (await agent.succeed("get_job", job_id=drawn["job_id"]))["images"] == []
    await agent.succeed("edit_library", id=image_id, action="restore")
    assert (await agent.succeed("list_library"))["items"][0]["id"] == image_id


async def test_a_renamed_picture_and_character_are_found_by_the_new_name(agent: Agent) -> None:
    image_id = (await agent.draw())["image_id"]
    await agent.succeed("edit_library", id=image_id, action="rename", name="Cover")
    (item,) = (await agent.succeed("list_library", query="cover"))["items"]
    assert (item["id"], item["about"]) == (image_id, "Cover")
    saved = await save(agent, "Fox", "red")
    out = await agent.succeed("edit_library", id="fox", action="rename", name="Reynard")
    assert (out["id"], out["name"]) == (saved, "Reynard")
    await agent.succeed(image="reynard")
    message = await agent.fail("edit_library", id="fox", action="delete")
    assert "there is no picture or character 'fox'" in message


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "jobs", "characters"])
async def test_pages_of_the_library_are_small_and_miss_nothing(agent: Agent, kind: str) -> None:
    long = "waving \u00fc" * 40
    expected = set()
    for number in range(40):
        if kind == "characters":
            expected.add(await save(agent, f"{number} {long}"[:100], "red"))
        else:
            out = await agent.succeed(prompt=f"{number} {long}", seed=number, num_images=2)
            ids = [image["image_id"] for image in out["images"]]
            expected |= set(ids if kind == "images" else [out["job_id"]])
    found: list[str] = []
    cursor = ""
    while True:
        result = await agent.call("list_library", kind=kind, limit=100, cursor=cursor)
        assert len(result.model_dump_json(by_alias=True).encode()) < 25_000
        page = result.structured_content
        assert isinstance(page, dict)
        found += [item["id"] for item in page["items"]]
        if not (cursor := page.get("next_cursor", "")):
            break
    assert len(found) == len(set(found)) == len(expected)
    assert set(found) == expected


async def test_a_series_is_one_job_of_the_library(agent: Agent) -> None:
    out = await agent.succeed("draw_scenes", scenes=["waving", "asleep"], image="fox.png")
    (job,) = (await agent.succeed("list_library", kind="jobs"))["items"]
    assert (job["id"], job["about"]) == (out["job_id"], "waving / asleep")
    message = await agent.fail("list_library", kind="jobs", cursor="nonsense")
    assert "`cursor`" in message
    assert json.dumps(job)
