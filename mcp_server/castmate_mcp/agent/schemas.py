"""Reduces Pydantic's JSON schemas to what is worth an agent's context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_LEFT_OUT: Final = ("title", "$defs", "examples")  # descriptions contain the examples


def compact(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without titles, which repeat the names, without null, and with inlined parts.

    Whatever may be null may be omitted, and only that is advertised; null is still accepted.

    Args:
        schema: An object's; none of its parts contains itself.
    """
    parts = schema.get("$defs", {})

    def clean(given: Mapping[str, Any]) -> dict[str, Any]:
        node = {key: value for key, value in given.items() if key not in _LEFT_OUT}
        if node.get("default", 0) is None:
            del node["default"]
        if node.get("additionalProperties") is True:  # the default
            del node["additionalProperties"]
        if "$ref" in node:
            named = parts[node.pop("$ref").rpartition("/")[2]]
            node = {
                key: value for key, value in clean(named).items() if key != "description"
            } | node
        kinds = [kind for kind in node.get("anyOf", ()) if kind.get("type") != "null"]
        if len(kinds) == 1:
            del node["anyOf"]
            node = clean(kinds[0]) | node
        if "properties" in node:
            node["properties"] = {name: clean(one) for name, one in node["properties"].items()}
        if node.get("additionalProperties") is True:
            del node["additionalProperties"]  # omitting it means the same
        if isinstance(node.get("items"), dict):
            node["items"] = clean(node["items"])
        return node

    return clean(schema)


OBJECT: Final[dict[str, Any]] = {"type": "object"}
"""The advertised schema of every result: it is structured.

Descriptions name the parts that matter and results speak for themselves; more would cost context in
every conversation.
"""


def in_words(parameter: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter whose description includes its range and default: hosts drop the keywords."""
    words = [parameter.get("description", "")]
    facts = [*_range(parameter), *_default(parameter)]
    if facts:
        words.append(", ".join(facts) + ".")
    return {**parameter, "description": " ".join(filter(None, words))}


def _range(parameter: Mapping[str, Any]) -> Iterator[str]:
    match parameter:
        case {"enum": values}:
            yield "|".join(values)
        case {"minimum": low, "maximum": high}:
            yield f"{low:g}..{high:.10g}"
        case {"minimum": low}:
            yield f"{low:g} or more"
        case {"maxLength": most}:
            yield f"Up to {most} characters"
        case {"maxItems": most}:
            yield f"Up to {most}"


def _default(parameter: Mapping[str, Any]) -> Iterator[str]:
    default = parameter.get("default")
    if isinstance(default, bool):
        yield f"default {str(default).lower()}"
    elif default not in (None, ""):
        yield f"default {default}"
