"""A bad call is repaired from its error alone, by a program that only reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from castmate_mcp.agent.server import GENERATE
from tests.doubles import picture
from tests.mcp_server.conftest import SCENE, Agent

pytestmark = pytest.mark.anyio

TRANSPARENT_JPEG = {"background": "transparent", "output_format": "jpeg"}

# (what is wrong, the tool, what is put over a good call)
BAD: list[tuple[str, str, dict[str, Any]]] = [
    ("a typo in a name", GENERATE, {"negative_promt": "rain"}),
    ("another word for image", GENERATE, {"reference_image": "fox.png", "image": None}),
    ("another word for size", GENERATE, {"resolution": "512*512", "size": None}),
    ("a missing prompt", GENERATE, {"prompt": None}),
    ("a missing image", GENERATE, {"image": None}),
    ("a size that is too small", GENERATE, {"size": "64*64"}),
    ("a size of another form", GENERATE, {"size": "512 by 512"}),
    ("a number that is too large", GENERATE, {"num_images": 9}),
    ("a number that is too small", GENERATE, {"num_inference_steps": 0}),
    ("a word for a number", GENERATE, {"guidance_scale": "high"}),
    ("a format that does not exist", GENERATE, {"output_format": "bmp"}),
    ("a misspelt file", GENERATE, {"image": "fxo.png"}),
    ("a file outside", GENERATE, {"image": "/etc/passwd"}),
    ("the id of a job for a picture", "view_image", {"image_id": "job_0", "max_px": 100}),
    ("a misspelt name", GENERATE, {"image": "Foxx"}),
    ("a misspelt name for a view", "view_image", {"image_id": "Foxx"}),
    ("a format without transparency", GENERATE, TRANSPARENT_JPEG),
    ("a background that does not exist", GENERATE, {"background": "none"}),
    ("a place outside", GENERATE, {"save_to": "/etc/fox.png"}),
    ("a place that is taken", GENERATE, {"save_to": "fox.png"}),
    ("a layout that does not exist", "draw_scenes", {"layout": "comic"}),
    ("a scene that is empty", "draw_scenes", {"scenes": [""]}),
    ("no scenes", "draw_scenes", {"scenes": None}),
    ("another word for style_words", "draw_scenes", {"style": "ink"}),
    ("an action that does not exist", "edit_library", {"action": "remove"}),
    ("a cursor of nothing", "list_library", {"cursor": "page 2"}),
]
GOOD: dict[str, dict[str, Any]] = {
    GENERATE: SCENE,
    "draw_scenes": {"scenes": ["waving"], "image": "fox.png"},
    "edit_library": {"id": "Fox", "action": "rename", "name": "Fox"},
}


def repair(message: str, arguments: dict[str, Any], known: list[str]) -> dict[str, Any]:
    """Change what the error names, to what the error allows; nothing is known of the tool."""
    repaired = dict(arguments)
    for name, rest in re.findall(r"^- `([\w.]+)`: (.*)$", message, re.MULTILINE):
        if nearest := re.search(r"The nearest: `([^`]+)`", rest):
            repaired[name] = nearest[1]
        elif meant := re.search(r"did you mean `(\w+)`", rest):
            repaired[meant[1]] = repaired.pop(name)
        elif numbers := re.search(r"from (-?[\d.]+) to (-?[\d.]+)", rest):
            low, high = float(numbers[1]), float(numbers[2])
            value = arguments.get(name)
            given = value if isinstance(value, int | float) else low
            fitting = min(max(given, low), high)
            repaired[name] = int(fitting) if "whole number" in rest else fitting
        elif example := re.search(r"such as (\S+)", rest):
            repaired[name] = [example[1]] if "a list of" in rest else example[1]
        elif pictures := re.search(r"Pictures in (\S+): (\S+)", rest):
            repaired[name] = f"{pictures[1]}/{pictures[2].rstrip(',')}"
        elif folder := re.search(r"a path in (\S+?)[;,]? ", rest + " "):
            repaired[name] = f"{folder[1]}/fox.png"
        elif "Leave it out" in rest:
            del repaired[name]
        elif path := re.search(r"allowed: (/\S+\.\w+)", rest):
            repaired[name] = path[1].rstrip(";")
        elif name.partition(".")[2].isdigit():
            repaired[name.partition(".")[0]] = ["waving"]
        elif choice := re.search(r"allowed: (\w+), ", rest):
            repaired[name] = int(choice[1]) if choice[1].isdigit() else choice[1]
        elif "is required" in rest and name not in repaired:
            repaired[name] = "fox.png" if "character" in rest and "path" in rest else "waving"
        elif known:
            repaired[name] = known[0]
    return repaired


async def test_of_26_kinds_of_bad_calls_all_are_refused_and_25_repaired_in_one_try(
    agent: Agent,
) -> None:
    Path("fox.png").write_bytes(picture())
    await agent.succeed("create_character", name="Fox", references=["fox.png"])
    known = [(await agent.draw())["image_id"]]
    repaired = []
    for kind, tool, wrong in BAD:
        arguments = GOOD.get(tool, {}) | wrong
        arguments = {name: value for name, value in arguments.items() if value is not None}
        bad = await agent.client.call_tool(tool, arguments)
        assert bad.is_error, kind
        (content,) = bad.content
        message = getattr(content, "text", "")
        assert "nothing was generated or charged" in message, kind
        again = await agent.client.call_tool(tool, repair(message, arguments, known))
        if not again.is_error:
            repaired.append(kind)
    missed = [kind for kind, *_ in BAD if kind not in repaired]
    assert len(BAD) == 26
    assert len(repaired) >= 25, missed
