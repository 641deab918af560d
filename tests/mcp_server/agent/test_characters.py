"""`castmate characters` and `castmate pictures` change what agents see, beside a running server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import anyio.to_thread
import pytest
from typer.testing import CliRunner, Result

from castmate_mcp.cli import characters, pictures
from tests.doubles import picture
from tests.mcp_server.conftest import Agent

pytestmark = pytest.mark.anyio


async def castmate_characters(*arguments: str) -> Result:
    return await anyio.to_thread.run_sync(CliRunner().invoke, characters, arguments)


async def test_what_an_agent_saved_is_listed_and_gone_for_it_once_it_is_deleted(
    agent: Agent,
) -> None:
    saved = await agent.succeed("create_character", name="Fox", references=["fox.png"])
    name = saved["character_id"]
    listed = (await castmate_characters("list")).stdout
    assert re.fullmatch(rf"{name}  \d{{4}}-\d\d-\d\d  local  1 picture  Fox\n", listed)
    (character,) = json.loads((await castmate_characters("list", "--json")).stdout)
    assert (character["id"], character["name"], character["num_pictures"]) == (name, "Fox", 1)
    assert (await castmate_characters("list", "--key", "ann")).stdout == ""
    renamed = await castmate_characters("rename", "fox", "Reynard")
    assert renamed.stdout == f"{name} is called Reynard.\n"
    unknown = await castmate_characters("rename", "Reynold", "Fox")
    assert (unknown.exit_code, "The nearest: `Reynard`" in unknown.stderr) == (2, True)
    for arguments in (("delete", "reynard"), ("restore", name), ("rename", name, "Fox")):
        assert (await castmate_characters(*arguments)).exit_code == 0
    deleted = await castmate_characters("delete", name, "--forever")
    assert (deleted.exit_code, deleted.stdout) == (0, f"Fox ({name}) of local is removed.\n")
    assert f"there is no picture or character '{name}'" in await agent.fail(image=name)
    assert (await agent.succeed("list_library", kind="characters"))["items"] == []
    again = await castmate_characters("delete", name)
    assert again.exit_code == 2
    assert again.stderr == (
        f"Error: `character_id`: there is no character '{name}'; allowed: an id of "
        "`castmate characters list`\n"
    )


async def test_a_character_that_a_command_saved_is_drawn_by_an_agent(agent: Agent) -> None:
    Path("blue.png").write_bytes(picture(colour="blue"))
    saved = await castmate_characters("create", " Mira ", "fox.png", "blue.png")
    (name,) = re.findall(r"(chr_[0-9a-f]{16}) is Mira: ", saved.stdout)
    assert (
        await castmate_characters("create", "Mira", "fox.png", "blue.png")
    ).stdout == saved.stdout
    await agent.succeed(image="Mira")
    assert len(agent.drawing.references[-1].pictures) == 2
    for arguments, expected in (
        (("Two\nlines", "fox.png"), "`name`"),
        (("Nova", "missing.png"), "does not exist"),
        (("Nova", *([name] * 5)), "1..8 pictures"),
    ):
        refused = await castmate_characters("create", *arguments)
        assert (refused.exit_code, expected in refused.stderr) == (2, True), refused.stderr
    (item,) = (await agent.succeed("list_library", kind="characters"))["items"]
    assert item["id"] == name


async def castmate_pictures(*arguments: str) -> Result:
    return await anyio.to_thread.run_sync(CliRunner().invoke, pictures, arguments)


async def test_a_character_that_was_deleted_is_back_for_the_agent_once_it_is_restored(
    agent: Agent,
) -> None:
    await agent.succeed("create_character", name="Fox", references=["fox.png"])
    deleted = await castmate_characters("delete", "fox")
    assert deleted.exit_code == 0
    (restore,) = re.findall(r"castmate characters (restore chr_[0-9a-f]{16})", deleted.stdout)
    assert "no saved character" in await agent.fail(image="Fox")
    assert (await castmate_characters(*restore.split())).exit_code == 0
    await agent.succeed(image="Fox")


async def test_a_picture_is_renamed_deleted_and_restored_for_the_agent(agent: Agent) -> None:
    image_id = (await agent.draw())["image_id"]
    assert (await castmate_pictures("rename", image_id, "Cover")).exit_code == 0
    (item,) = (await agent.succeed("list_library", query="cover"))["items"]
    assert item["id"] == image_id
    deleted = await castmate_pictures("delete", image_id)
    (restore,) = re.findall(r"castmate pictures (restore img_[0-9a-f]{32}-0)", deleted.stdout)
    assert (await agent.succeed("list_library"))["items"] == []
    restored = await castmate_pictures(*restore.split())
    assert restored.stdout == f"{image_id} is back.\n"
    assert [one["id"] for one in (await agent.succeed("list_library"))["items"]] == [image_id]


@pytest.mark.parametrize("name", ["cover.png", f"img_{'0' * 32}-0"])
async def test_a_command_that_names_no_picture_says_what_is_allowed(
    agent: Agent, name: str
) -> None:
    await agent.draw()
    for arguments in (("rename", name, "Cover"), ("delete", name), ("restore", name)):
        done = await castmate_pictures(*arguments)
        assert done.exit_code == 2
        assert f"`image_id`: there is no picture '{name}'; allowed: an image_id" in done.stderr
