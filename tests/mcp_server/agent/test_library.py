"""What was drawn and saved is found again: by lists, by views and as resources."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp.types import BlobResourceContents, ImageContent, TextResourceContents
from PIL import Image

from castmate.clients.local import LocalClient
from castmate.engines.bundle import locate
from castmate.pipeline.pipeline import Pipeline
from tests.castmate.conftest import toon  # noqa: F401
from tests.doubles import FlatClient, encoded, noise, picture
from tests.mcp_server.conftest import Agent, Connect, decode

pytestmark = pytest.mark.anyio


async def test_pictures_characters_and_jobs_are_listed_the_newest_first(agent: Agent) -> None:
    first = await agent.draw(prompt="waving")
    second = await agent.draw(prompt="running in the rain")
    saved = await agent.succeed("create_character", name="Fox", references=["fox.png"])
    images = (await agent.succeed("list_library"))["items"]
    assert [item["id"] for item in images] == [second["image_id"], first["image_id"]]
    assert images[0]["about"] == "running in the rain"
    assert Path(images[0]["file_path"]).is_file()
    (found,) = (await agent.succeed("list_library", query="RAIN"))["items"]
    assert found["id"] == second["image_id"]
    assert len((await agent.succeed("list_library", limit=1))["items"]) == 1
    (character,) = (await agent.succeed("list_library", kind="characters"))["items"]
    assert (character["id"], character["about"]) == (saved["character_id"], "Fox")
    jobs = (await agent.succeed("list_library", kind="jobs"))["items"]
    assert [job["status"] for job in jobs] == ["completed", "completed"]
    nothing = await agent.succeed("list_library", query="snow")
    assert nothing["items"] == []
    assert "There is none" in nothing["next_step"]


async def test_a_view_is_the_picture_alone_at_the_asked_size(agent: Agent) -> None:
    image_id = (await agent.draw())["image_id"]
    for max_px in (256, 512, 768):
        result = await agent.call("view_image", image_id=image_id, max_px=max_px)
        (content,) = result.content
        assert isinstance(content, ImageContent)
        assert result.structured_content is None
        assert max(decode(content.data).size) == min(max_px, 640)
    message = await agent.fail("view_image", image_id=image_id, max_px=300)
    assert "allowed: 256, 512, 768, 1024" in message
    assert "there is no finished picture" in await agent.fail("view_image", image_id="img_1")


async def test_a_view_of_the_picture_that_compresses_worst_fits_every_host(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    worst = encoded(noise((1536, 1536)))
    monkeypatch.setattr("tests.doubles.encode", lambda *_: worst)
    image_id = (await agent.draw())["image_id"]
    (content,) = (await agent.call("view_image", image_id=image_id, max_px=1024)).content
    assert isinstance(content, ImageContent)
    assert len(content.data) <= 90_000


async def test_the_resource_gives_the_whole_picture_as_png_whatever_its_file_is(
    agent: Agent,
) -> None:
    for output_format in ("png", "webp", "jpeg"):
        image = await agent.draw(output_format=output_format)
        assert Path(image["file_path"]).suffix == f".{output_format}"
        (content,) = (await agent.client.read_resource(image["image_uri"])).contents
        assert isinstance(content, BlobResourceContents)
        whole = decode(content.blob)
        assert (content.mime_type, whole.format, whole.size) == ("image/png", "PNG", (512, 640))
        (small,) = (await agent.client.read_resource(f"{image['image_uri']}/preview.jpg")).contents
        assert isinstance(small, BlobResourceContents)
        assert (small.mime_type, decode(small.blob).size) == ("image/jpeg", (410, 512))


@pytest.mark.parametrize(
    "uri",
    [
        "image://img_0123456789abcdef",
        f"image://img_{'0' * 32}-0",
        "image://..%2f..%2ffox",
        f"image://img_{'0' * 32}-0/preview.jpg",
        "character://chr_0123456789abcdef",
        f"job://job_{'0' * 32}",
        "nothing://here",
    ],
)
async def test_a_resource_that_does_not_exist_is_a_protocol_error(agent: Agent, uri: str) -> None:
    with pytest.raises(MCPError) as caught:
        await agent.client.read_resource(uri)
    assert caught.value.error.code == -32602


async def text_of(agent: Agent, uri: str) -> str:
    (content,) = (await agent.client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content.text


async def test_characters_jobs_and_the_guide_are_resources_too(agent: Agent) -> None:
    out = await agent.succeed()
    saved = await agent.succeed("create_character", name="Fox", references=["fox.png"])
    assert json.loads(await text_of(agent, saved["character_uri"]))["name"] == "Fox"
    job = json.loads(await text_of(agent, f"job://{out['job_id']}"))
    assert (job["status"], job["images"]) == ("completed", [out["images"][0]["image_uri"]])
    assert "Describe the scene, not the character" in await text_of(agent, "guide://prompting")


async def test_a_saved_character_is_drawn_from_by_its_handle_also_after_a_restart(
    connect: Connect, agent: Agent
) -> None:
    Path("back.png").write_bytes(picture(colour="blue"))
    out = await agent.succeed("create_character", name="Fox", references=["fox.png", "back.png"])
    assert (out["num_references"], out["created"]) == (2, True)
    again = await agent.succeed("create_character", name="Fox", references=["fox.png", "back.png"])
    assert (again["character_id"], again["created"]) == (out["character_id"], False)
    Path("fox.png").unlink()
    async with connect(agent.drawing) as later:
        for name, colour in (("", (255, 0, 0)), ("/1", (255, 0, 0)), ("/2", (0, 0, 255))):
            await later.draw(image=out["character_id"] + name)
            assert later.drawing.references[-1].image.getpixel((0, 0)) == colour
        assert "has 2 pictures, and no 3" in await later.fail(image=f"{out['character_id']}/3")


async def test_a_bad_picture_of_a_character_is_named_by_its_place(agent: Agent) -> None:
    message = await agent.fail("create_character", name="Fox", references=["fox.png", "nope.png"])
    assert "`references.1`: nope.png does not exist" in message
    message = await agent.fail("create_character", name="Fox", references=[])
    assert "`references`: [] is not allowed; allowed: a list of 1..8 texts" in message
    assert "`name`: is required" in await agent.fail("create_character", references=["fox.png"])
    message = await agent.fail("create_character", name="Fox", references=[7])
    assert "`references.0`: 7 is not allowed" in message


@pytest.mark.slow
async def test_a_saved_character_is_encoded_before_its_first_picture(
    connect: Connect,
    toon: Pipeline,  # noqa: F811
    era: str,
) -> None:
    with Image.open(locate("toon") / "references/mira.png") as mira:
        mira.putpixel((0, 0), (len(era), 0, 0))  # one that no other test has encoded
        mira.save("mira.png")
    async with connect(LocalClient(toon)) as agent:
        _, before = toon.cache_counts()["subject"]
        saved = await agent.succeed("create_character", name="Mira", references=["mira.png"])
        while toon.cache_counts()["subject"][1] == before:
            await anyio.sleep(0.01)
        hits, misses = toon.cache_counts()["subject"]
        out = await agent.succeed(
            image=saved["character_id"], size="512*512", num_inference_steps=1
        )
        assert out["status"] == "completed"
        assert toon.cache_counts()["subject"] == (hits + 1, misses + 1)  # the schedule alone is new


async def test_results_and_the_status_say_how_long_pictures_are_kept_where_they_are_not_for_ever(
    connect: Connect,
) -> None:
    async with connect(FlatClient(), retention_days=7) as agent:
        assert (await agent.succeed("get_status"))["kept_days"] == 7
        assert (await agent.succeed())["expires_at"].endswith("+00:00")
    async with connect(FlatClient(), data_dir="other") as agent:
        assert "kept_days" not in await agent.succeed("get_status")
        assert "expires_at" not in await agent.succeed()
