"""Prompts, completions and notices: what hosts offer around the tools."""

from __future__ import annotations

from importlib.resources import files

import anyio
import pytest
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.types import PromptReference, ResourceTemplateReference, TextContent

from tests.doubles import SlowClient
from tests.mcp_server.conftest import Agent, Connect

pytestmark = pytest.mark.anyio

PROMPTS = {
    "character_sheet": {"character": "chr_1", "views": "front, back"},
    "storyboard": {"character": "chr_1", "story": "She finds a map.", "panels": "6"},
    "same_character_new_outfit": {"character": "chr_1", "outfit": "a yellow raincoat"},
    "sticker": {"character": "chr_1", "feeling": "surprise"},
    "avatar": {"character": "chr_1"},
    "sprite_sheet": {"character": "chr_1", "poses": "running, asleep"},
}


async def test_every_prompt_carries_its_arguments_and_names_tools_that_exist(agent: Agent) -> None:
    listed = {prompt.name: prompt for prompt in (await agent.client.list_prompts()).prompts}
    assert listed.keys() == PROMPTS.keys()
    for name, arguments in PROMPTS.items():
        assert all(argument.description for argument in listed[name].arguments or ())
        (message,) = (await agent.client.get_prompt(name, arguments)).messages
        assert isinstance(message.content, TextContent)
        for value in arguments.values():
            assert value in message.content.text
        assert "view_image" in message.content.text or "generate_character_image" in (
            message.content.text
        )


async def test_a_story_that_is_told_twice_is_drawn_twice(agent: Agent) -> None:
    asked = await agent.client.get_prompt("storyboard", PROMPTS["storyboard"])
    (message,) = asked.messages
    assert isinstance(message.content, TextContent)
    assert "Call draw_scenes once" in message.content.text
    panels = {"scenes": ["She wakes.", "She runs."], "image": "fox.png", "size": "1024*640"}
    first, second = [await agent.succeed("draw_scenes", **panels) for _ in range(2)]
    assert first["job_id"] != second["job_id"]
    assert second["deduplicated"] is False


async def test_the_skill_draws_a_series_by_one_call() -> None:
    skill = files("castmate_mcp.agent") / "extensions/skills/consistent-character/SKILL.md"
    text = skill.read_text(encoding="utf-8")
    assert "one call of `draw_scenes`" in text
    assert "idempotency_key" not in text


async def test_ids_are_completed_from_what_the_caller_has(agent: Agent) -> None:
    drawn = await agent.succeed()
    saved = await agent.succeed("create_character", name="Fox", references=["fox.png"])
    sheet = PromptReference(type="ref/prompt", name="character_sheet")
    image = ResourceTemplateReference(type="ref/resource", uri="image://{image_id}")
    job = ResourceTemplateReference(type="ref/resource", uri="job://{job_id}")
    for ref, name, expected in (
        (sheet, "character", saved["character_id"]),
        (image, "image_id", drawn["images"][0]["image_id"]),
        (job, "job_id", drawn["job_id"]),
    ):
        for typed, values in ((expected[:6], [expected]), ("nothing", [])):
            found = await agent.client.complete(ref, {"name": name, "value": typed})
            assert found.completion.values == values


async def test_who_watches_a_job_is_told_when_its_picture_is_there(
    connect: Connect, era: str
) -> None:
    slow, notified = SlowClient(), anyio.Event()

    async def on_message(message: object) -> None:
        if "ResourceUpdated" in type(message).__name__ or "resources/updated" in str(message):
            notified.set()

    async with connect(slow, hold_s=0, client_message_handler=on_message) as agent:
        uri = f"job://{(await agent.succeed())['job_id']}"
        if era == "legacy":
            with pytest.warns(MCPDeprecationWarning):
                await agent.client.session.subscribe_resource(uri)
            slow.may_end.set()
            await notified.wait()
        else:
            async with agent.client.listen(resource_subscriptions=[uri]) as events:
                slow.may_end.set()
                async for event in events:
                    assert getattr(event, "uri", None) == uri
                    break
        assert (await agent.succeed("get_job", job_id=uri))["status"] == "completed"
