"""`castmate characters` lists and removes what agents have saved, beside a server that runs."""

from __future__ import annotations

import json
import re

import anyio.to_thread
import pytest
from typer.testing import CliRunner, Result

from castmate_mcp.cli import characters
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
    (told,) = json.loads((await castmate_characters("list", "--json")).stdout)
    assert (told["id"], told["name"], told["num_pictures"]) == (name, "Fox", 1)
    assert (await castmate_characters("list", "--key", "ann")).stdout == ""
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
