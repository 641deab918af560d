"""What an agent may leave out, cut in two or write otherwise, through every transport."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.shared.exceptions import MCPError
from mcp.types import CLIENT_CAPABILITIES_META_KEY, PROTOCOL_VERSION_META_KEY

from castmate_mcp.agent.surrogates import mend
from tests.doubles import picture
from tests.mcp_server.agent.test_streamable import RED, site
from tests.mcp_server.conftest import SCENE, Agent

pytestmark = pytest.mark.anyio

HALF = "\ud83d"


async def test_null_is_taken_for_every_optional_parameter_of_every_tool(agent: Agent) -> None:
    drawn = await agent.succeed()
    required = {
        "generate_character_image": SCENE,
        "get_job": {"job_id": drawn["job_id"]},
        "cancel_job": {"job_id": drawn["job_id"]},
        "view_image": {"image_id": drawn["images"][0]["image_id"]},
        "create_character": {"name": "Fox", "references": ["fox.png"]},
        "draw_scenes": {"scenes": ["waving"], "image": "fox.png"},
        "edit_library": {"id": drawn["images"][0]["image_id"], "action": "restore"},
    }
    tools = (await agent.client.list_tools()).tools
    for tool in tools:
        given = required.get(tool.name, {})
        needed = {*tool.input_schema.get("required", ())}
        null = {name: None for name in tool.input_schema["properties"] if name not in needed}
        values = {name: value for name, value in given.items() if name in needed}
        result = await agent.client.call_tool(tool.name, null | values)
        assert not result.is_error, (tool.name, result.content)
    assert agent.drawing.requests[-1].num_inference_steps is None  # it is the model's to choose
    assert "`prompt`: None is not allowed" in await agent.fail(prompt=None)


@pytest.mark.parametrize(
    ("tool", "arguments", "parameter"),
    [
        ("generate_character_image", {"prompt": f"a fox {HALF} waving"}, "prompt"),
        ("generate_character_image", {"image": HALF}, "image"),
        ("generate_character_image", {"idempotency_key": HALF}, "idempotency_key"),
        ("create_character", {"name": HALF, "references": [RED]}, "name"),
        ("create_character", {"name": "Fox", "references": [f"fox{HALF}.png"]}, "references"),
        ("list_library", {"query": HALF}, "query"),
        ("get_job", {"job_id": HALF}, "job_id"),
        ("view_image", {"image_id": HALF}, "image_id"),
    ],
)
async def test_half_of_a_character_is_refused_with_its_parameter(
    agent: Agent, tool: str, arguments: dict[str, Any], parameter: str
) -> None:
    message = await agent.fail(tool, **arguments)
    assert f"- `{parameter}`: holds half of a character" in message
    assert agent.drawing.requests == []


async def test_half_of_a_character_in_a_prompts_argument_is_refused(agent: Agent) -> None:
    arguments = {"character": "chr_1", "outfit": HALF}
    with pytest.raises(MCPError, match="`outfit`: holds half of a character"):
        await agent.client.get_prompt("same_character_new_outfit", arguments)


@pytest.mark.parametrize(
    "name", ["", " ", "\n", "Fox\nRed", "Fox\r\n1", "Fox\u2028Red", "Fox\0", "a\tb"]
)
async def test_a_name_that_is_blank_or_has_several_lines_is_refused(
    agent: Agent, name: str
) -> None:
    message = await agent.fail("create_character", name=name, references=["fox.png"])
    assert "`name`: " in message
    assert "allowed: one line of 1..100 characters" in message
    assert (await agent.succeed("list_library", kind="characters"))["items"] == []


async def test_a_name_may_have_spaces_around_it_and_any_letters(agent: Agent) -> None:
    for name in (" Fox ", "Ärger 狐 👩\u200d🚀"):
        saved = await agent.succeed("create_character", name=name, references=["fox.png"])
        assert saved["name"] == name.strip()


@pytest.mark.parametrize("max_px", [0, 255, 300, 1025, -1])
async def test_view_image_says_which_sizes_there_are(agent: Agent, max_px: int) -> None:
    image_id = (await agent.draw())["image_id"]
    message = await agent.fail("view_image", image_id=image_id, max_px=max_px)
    assert f"`max_px`: {max_px} is not allowed; allowed: 256, 512, 768, 1024" in message
    await agent.call("view_image", image_id=image_id, max_px=256)


async def test_no_number_is_an_enum_which_gemini_refuses_with_every_request(agent: Agent) -> None:
    for tool in (await agent.client.list_tools()).tools:
        for name, parameter in tool.input_schema["properties"].items():
            if "enum" in parameter:
                assert parameter["type"] == "string", (tool.name, name)


async def test_ranges_defaults_and_examples_stand_in_words_too(agent: Agent) -> None:
    """Codex and Copilot drop the keywords of JSON Schema."""
    for tool in (await agent.client.list_tools()).tools:
        for name, parameter in tool.input_schema["properties"].items():
            words = parameter["description"]
            for keyword in ("minimum", "maximum", "maxLength", "maxItems", "default"):
                value = parameter.get(keyword)
                said = str(value).lower() if isinstance(value, bool) else f"{value}"
                if value is not None and value != "":
                    number = f"{value:.10g}" if isinstance(value, float) else said
                    assert re.search(rf"(?<!\d){re.escape(number)}(?!\d)", words), (tool.name, name)
            for value in parameter.get("enum", ()):
                assert value in words, (tool.name, name)
            has_example = "default" in parameter or "such as" in words or "..." in words
            has_example |= "enum" in parameter  # all of which the words have
            assert has_example or parameter["type"] == "array", (tool.name, name)


@pytest.mark.parametrize(
    "on_disk",
    ["Screenshot 1.02\u202fPM für.png", unicodedata.normalize("NFD", "Screenshot 1.02 PM für.png")],
)
async def test_a_file_is_found_however_its_name_spells_spaces_and_accents(
    agent: Agent, own_folder: Path, on_disk: str
) -> None:
    (own_folder / on_disk).write_bytes(picture())
    await agent.succeed(image="Screenshot 1.02 PM für.png")
    message = await agent.fail(image="Screenshot 1.03 PM für.png")
    assert f"Pictures in {own_folder}: {on_disk}, fox.png" in message


def message(number: int, prompt: str, **meta: Any) -> bytes:
    """A call as JSON in ASCII, so that every half of a character is an escape."""
    arguments = {"image": "fox.png", "prompt": prompt}
    call = {"name": "generate_character_image", "arguments": arguments, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call}
    return json.dumps(body).encode() + b"\n"


def initialize() -> bytes:
    client = {"name": "test", "version": "1"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
    first = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    then = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    return b"".join(json.dumps(one).encode() + b"\n" for one in (first, then))


@pytest.mark.parametrize(
    "text", ["🦊", "a \\ud83d b", "\\\\ud83d", "é\n", f"{HALF}🦊", f"🦊{HALF}x"]
)
def test_only_halves_of_characters_are_marked_and_no_byte_is_moved(text: str) -> None:
    sent = json.dumps(text).encode()
    mended = mend(sent)
    assert len(mended) == len(sent)
    assert json.loads(mended) == text.replace(HALF, "\ufdd0")


@pytest.mark.slow
async def test_over_stdio_half_of_a_character_is_answered(own_folder: Path) -> None:
    (own_folder / "fox.png").write_bytes(picture())
    command = [sys.executable, "-m", "castmate_mcp", "--data-dir", str(own_folder.parent / "data")]
    with anyio.fail_after(60):
        async with await anyio.open_process(command, stderr=None, cwd=own_folder) as server:
            assert server.stdin
            assert server.stdout
            sent = initialize() + message(1, f"waving {HALF}")
            await server.stdin.send(sent)
            received, answers = b"", {}
            while 1 not in answers:
                received += await server.stdout.receive()
                lines = [json.loads(line) for line in received.split(b"\n")[:-1]]
                answers = {line["id"]: line for line in lines if "id" in line}
            (content,) = answers[1]["result"]["content"]
            assert "- `prompt`: holds half of a character" in content["text"]
            server.kill()


async def test_over_http_half_of_a_character_is_answered_in_both_eras(
    own_folder: Path, era: str
) -> None:
    async with site() as here, httpx2.AsyncClient() as http:
        modern = {PROTOCOL_VERSION_META_KEY: "2026-07-28", CLIENT_CAPABILITIES_META_KEY: {}}
        meta = modern if era == "auto" else {}
        refused = await raw(http, f"{here.url}/mcp", message(1, f"waving {HALF}", **meta), era)
        assert "`prompt`: holds half of a character" in refused


async def raw(http: httpx2.AsyncClient, url: str, body: bytes, era: str) -> str:
    """Send a call as it is, in a session of its own where the era has sessions."""
    headers = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
    }
    if era == "legacy":
        first, _ = initialize().splitlines()
        opened = await http.post(url, content=first, headers=headers)
        headers["mcp-session-id"] = opened.headers["mcp-session-id"]
        headers["mcp-protocol-version"] = "2025-11-25"
    else:
        headers["mcp-protocol-version"] = "2026-07-28"
        headers["mcp-method"] = "tools/call"
        headers["mcp-name"] = "generate_character_image"
    return (await http.post(url, content=body, headers=headers)).text
