"""Hosts translate the tools into their model's dialect of JSON Schema; nothing of ours is lost.

The subsets are those that the makers of the models document, as their clients apply them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tests.mcp_server.conftest import SCENE, Agent

pytestmark = pytest.mark.anyio

Schema = dict[str, Any]

# Gemini's `Schema`, the type of `parameters`; `additionalProperties` is taken out by its clients.
GEMINI = {
    *("type", "format", "title", "description", "nullable", "enum", "items", "maxItems"),
    *("minItems", "properties", "required", "minLength", "maxLength", "pattern", "example"),
    *("anyOf", "propertyOrdering", "default", "minimum", "maximum"),
}
# What OpenAI's strict mode takes; it refuses `default`, and wants every property required.
STRICT = {
    *("type", "description", "enum", "items", "maxItems", "minItems", "properties", "required"),
    *("additionalProperties", "pattern", "minimum", "maximum"),
}
# What is left of a parameter behind Codex's and Copilot's normalisers.
PLAIN = {"type", "description", "items", "properties", "required", "additionalProperties", "enum"}


async def schemas(agent: Agent) -> dict[str, Schema]:
    return {tool.name: tool.input_schema for tool in (await agent.client.list_tools()).tools}


def nodes(schema: Schema) -> Iterator[Schema]:
    """A schema and every schema in it."""
    yield schema
    for child in schema.get("properties", {}).values():
        yield from nodes(child)
    if "items" in schema:
        yield from nodes(schema["items"])


def reduced(schema: Schema, keywords: set[str]) -> Schema:
    """A schema without what a dialect does not have."""
    kept = {name: value for name, value in schema.items() if name in keywords}
    if "properties" in kept:
        children = kept["properties"].items()
        kept["properties"] = {name: reduced(child, keywords) for name, child in children}
    if "items" in kept:
        kept["items"] = reduced(kept["items"], keywords)
    return kept


def strict(schema: Schema) -> Schema:
    """As OpenAI's clients make a schema strict: all is required, and what was not may be null."""
    whole = reduced(schema, STRICT)
    needed = set(schema.get("required", ()))
    for name, child in whole["properties"].items():
        if name not in needed:
            child["type"] = [child["type"], "null"]
            if "enum" in child:
                child["enum"] = [*child["enum"], None]
    return whole | {"required": [*whole["properties"]]}


async def test_no_schema_has_a_union_a_reference_or_an_enum_of_numbers(agent: Agent) -> None:
    for name, schema in (await schemas(agent)).items():
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        for node in nodes(schema):
            assert isinstance(node["type"], str), name  # Copilot refuses lists of types
            assert not {"$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "const"} & node.keys()
            assert all(isinstance(value, str) for value in node.get("enum", ())), name
            assert node["type"] != "array" or "type" in node["items"], name


async def test_gemini_takes_every_keyword_as_it_is(agent: Agent) -> None:
    for name, schema in (await schemas(agent)).items():
        for node in nodes(schema):
            assert node.keys() - {"additionalProperties"} <= GEMINI, name
            assert node["type"] in ("object", "string", "integer", "number", "boolean", "array")
        assert re.fullmatch(r"[a-zA-Z_][\w.-]{0,63}", name)
        assert schema.get("required", []) == [
            one for one in schema["properties"] if one in schema.get("required", ())
        ]


async def test_openai_takes_them_plain_and_strict(agent: Agent) -> None:
    found = await schemas(agent)
    assert sum(len(schema["properties"]) for schema in found.values()) < 100
    for name, schema in found.items():
        assert re.fullmatch(r"[\w-]{1,64}", name)
        made = strict(schema)
        Draft202012Validator.check_schema(made)
        for node in nodes(made):
            assert node.keys() <= STRICT, name
            if node["type"] == "object":
                assert node["additionalProperties"] is False
                assert node["required"] == [*node["properties"]]


async def test_a_call_that_strict_mode_fills_with_null_is_taken(agent: Agent) -> None:
    made = strict((await schemas(agent))["generate_character_image"])
    call = dict.fromkeys(made["properties"]) | SCENE
    Draft202012Validator(made).validate(call)
    assert (await agent.succeed(**call))["status"] == "completed"


async def test_behind_the_normalisers_of_codex_and_copilot_the_words_are_left(
    agent: Agent,
) -> None:
    for name, schema in (await schemas(agent)).items():
        plain = reduced(schema, PLAIN)
        for parameter, node in plain["properties"].items():
            assert node["description"], (name, parameter)
            if node["type"] == "integer":  # which Codex makes a number
                assert re.search(r"\d", node["description"]), (name, parameter)
        assert plain["properties"].keys() == schema["properties"].keys()
