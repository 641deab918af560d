"""What agents read before the first call: names, descriptions, ranges, and how much it all is."""

from __future__ import annotations

import pytest

from castmate.schema import GenerateRequest
from castmate_mcp.agent.schemas import compact
from castmate_mcp.agent.server import GENERATE
from tests.doubles import DEFAULTS, FlatClient
from tests.mcp_server.conftest import Agent, Connect

pytestmark = pytest.mark.anyio

TOOLS = [
    GENERATE,
    "draw_scenes",
    "get_job",
    "cancel_job",
    "view_image",
    "create_character",
    "list_library",
    "edit_library",
    "get_status",
]


async def test_there_are_nine_tools_in_a_fixed_order_below_12_kb(agent: Agent) -> None:
    tools = (await agent.client.list_tools()).tools
    assert [tool.name for tool in tools] == TOOLS
    wire = [tool.model_dump_json(by_alias=True, exclude_none=True) for tool in tools]
    assert sum(map(len, wire)) < 12_000
    assert [tool.name for tool in tools if not tool.output_schema] == ["view_image"]


async def test_every_tool_says_when_to_use_it_and_when_not_and_what_it_costs(agent: Agent) -> None:
    for tool in (await agent.client.list_tools()).tools:
        assert tool.description
        assert tool.title
        assert "Use it " in tool.description
        assert "Not " in tool.description
        assert "free" in tool.description
        assert "Returns " in tool.description
        assert "\n    " not in tool.description
        assert tool.annotations
        assert tool.annotations.read_only_hint is not None
        assert tool.input_schema["additionalProperties"] is False
        for name, parameter in tool.input_schema["properties"].items():
            assert parameter.get("description"), f"{tool.name}.{name}"
            assert "title" not in parameter


async def test_the_tool_has_the_fields_of_the_request_with_their_ranges(agent: Agent) -> None:
    schema = (await agent.tool()).input_schema
    own = compact(GenerateRequest.model_json_schema())["properties"]
    usual = DEFAULTS.model_dump()
    for name, field in own.items():
        expected = field | ({"default": usual[name]} if name in usual else {})
        given = schema["properties"][name]
        assert "$ref" not in given
        for key in ("type", "minimum", "maximum", "minLength", "maxLength", "pattern", "default"):
            assert given.get(key) == expected.get(key), (name, key)
    assert [*schema["properties"]][: len(own)] == [*own]
    assert schema["required"] == ["prompt", "image"]
    assert {*schema["properties"]} - {*own} == {
        "wait_seconds",
        "idempotency_key",
        "accept_cost_usd",
        "save_to",
        "overwrite",
    }


async def test_a_model_that_nobody_has_asked_yet_has_examples_instead_of_defaults(
    connect: Connect,
) -> None:
    drawing = FlatClient()
    drawing.defaults = None
    async with connect(drawing) as agent:
        parameter = (await agent.tool()).input_schema["properties"]["num_inference_steps"]
        assert "default" not in parameter
        assert parameter["description"] == (
            "More is slower and finer, such as 28; by default the model's: 1..50."
        )
        assert (
            "defaults" not in await agent.succeed("get_status")
            or not (await agent.succeed("get_status"))["defaults"]
        )


async def test_the_status_says_what_the_model_takes_by_default(agent: Agent) -> None:
    assert (await agent.succeed("get_status"))["defaults"] == (
        "num_inference_steps 28, guidance_scale 3.5, subject_scale 0.8, true_cfg_scale 4"
    )


async def test_the_image_parameter_names_the_folders_that_may_be_read(agent: Agent) -> None:
    image = (await agent.tool()).input_schema["properties"]["image"]["description"]
    for root in agent.castmate.settings.image_roots:
        assert f"a path in {root}" in image
    assert "Never write base64" in image


async def test_the_price_is_in_the_description_where_there_is_one(connect: Connect) -> None:
    async with connect(FlatClient()) as agent:
        tool = await agent.tool()
        assert "It is free: drawn on the user's own machine." in (tool.description or "")
        assert tool.annotations
        assert tool.annotations.open_world_hint is False
    async with connect(FlatClient(), wavespeed_api_key="key", wavespeed_price_usd=0.25) as agent:
        tool = await agent.tool()
        assert "about $0.25 a picture, after the user has agreed" in (tool.description or "")
        assert tool.annotations
        assert tool.annotations.open_world_hint is True


async def test_the_server_says_how_it_is_used(agent: Agent) -> None:
    assert agent.client.instructions
    for said in ("create_character", "get_job", "same picture"):
        assert said in agent.client.instructions
