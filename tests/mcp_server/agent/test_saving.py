"""A picture is also written where the user wants it, and nowhere else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from castmate_mcp.agent.saving import Target
from tests.doubles import FlatClient, SlowClient, picture
from tests.mcp_server.agent.test_streamable import RED, site
from tests.mcp_server.conftest import Agent, Connect

pytestmark = pytest.mark.anyio


async def test_the_picture_is_where_the_call_wanted_it(agent: Agent, own_folder: Path) -> None:
    (own_folder / "out").mkdir()
    for asked in ("out/one.png", str(own_folder / "out/two.png")):
        out = await agent.succeed(save_to=asked)
        (saved,) = out["saved_to"]
        assert Path(saved) == own_folder / "out" / Path(asked).name
        assert Path(saved).read_bytes() == Path(out["images"][0]["file_path"]).read_bytes()


async def test_whoever_writes_a_picture_at_the_same_time_finds_it_whole(own_folder: Path) -> None:
    target, data = Target(own_folder / "one.png", overwrite=False), bytes(30_000_000)
    at_once = [asyncio.to_thread(target.write, [data]) for _ in range(6)]
    assert await asyncio.gather(*at_once) == 6 * [([str(own_folder / "one.png")], [])]


async def test_several_pictures_are_numbered(agent: Agent, own_folder: Path) -> None:
    out = await agent.succeed(save_to="fox-out.webp", output_format="webp", num_images=2)
    assert [Path(one).name for one in out["saved_to"]] == ["fox-out-1.webp", "fox-out-2.webp"]
    with Image.open(own_folder / "fox-out-2.webp") as image:
        assert image.format == "WEBP"


async def test_what_is_there_makes_way_only_where_the_call_says_so(
    agent: Agent, own_folder: Path
) -> None:
    (own_folder / "mine.png").write_bytes(b"precious")
    message = await agent.fail(save_to="mine.png")
    assert f"allowed: {own_folder / 'mine-2.png'}" in message
    assert "overwrite true" in message
    assert agent.drawing.requests == []
    assert (own_folder / "mine.png").read_bytes() == b"precious"
    out = await agent.succeed(save_to="mine.png", overwrite=True)
    assert out["saved_to"] == [str(own_folder / "mine.png")]


@pytest.mark.parametrize(
    ("save_to", "expected"),
    [
        ("/etc/fox.png", "is outside the folders"),
        ("../fox.png", "is outside the folders"),
        ("sub/../../fox.png", "is outside the folders"),
        ("missing/fox.png", "is no folder"),
        ("fox.jpg", "does not end in .png"),
        ("fox", "does not end in .png"),
        (" ", "is no path"),
        ("link/fox.png", "is outside the folders"),
        ("link.png", "is no plain file"),
        ("folder.png", "is no plain file"),
    ],
)
async def test_nothing_is_written_elsewhere(
    agent: Agent,
    own_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    save_to: str,
    expected: str,
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (own_folder / "sub").mkdir()
    (own_folder / "link").symlink_to(outside)
    (own_folder / "link.png").symlink_to(outside / "fox.png")
    (own_folder / "folder.png").mkdir()
    refused = await agent.fail(save_to=save_to, overwrite=True)
    assert "`save_to`: " in refused
    assert expected in refused
    assert agent.drawing.requests == []
    assert list(outside.iterdir()) == []


async def test_a_link_that_appears_while_the_picture_is_drawn_is_not_followed(
    connect: Connect, own_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    slow = SlowClient()
    async with connect(slow) as agent:
        call = asyncio.create_task(agent.succeed(save_to="late.png"))
        await slow.started.wait()
        (own_folder / "late.png").symlink_to(outside / "late.png")
        slow.may_end.set()
        out = await call
        assert out["saved_to"] == []
        assert any("late.png" in warning for warning in out["warnings"])
        assert list(outside.iterdir()) == []


async def test_a_job_whose_call_has_gone_is_saved_all_the_same(
    connect: Connect, own_folder: Path
) -> None:
    slow = SlowClient()
    async with connect(slow) as agent:
        out = await agent.succeed(save_to="later.png", wait_seconds=0)
        assert out["status"] == "running"
    async with connect(FlatClient()) as agent:  # the next server
        done = await agent.succeed("get_job", job_id=out["job_id"])
        assert done["saved_to"] == [str(own_folder / "later.png")]
        assert (own_folder / "later.png").is_file()


async def test_a_caller_elsewhere_has_no_disk_here(own_folder: Path) -> None:
    (own_folder / "fox.png").write_bytes(picture())
    async with site() as here:
        _, ann = await here.keys.create("ann")
        async with here.agent("auto", ann) as agent:
            arguments: dict[str, Any] = {"image": RED, "save_to": "fox-2.png"}
            message = await agent.fail(**arguments)
            assert "download_url" in message
            assert not (own_folder / "fox-2.png").exists()
