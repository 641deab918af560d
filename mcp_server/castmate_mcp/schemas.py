"""Pydantic's JSON schemas without what only costs an agent context."""

from __future__ import annotations

from typing import Any


def compact(schema: dict[str, Any], *, result: bool = False) -> dict[str, Any]:
    """The schema without titles, which repeat the names, and without null.

    What may be null may be left out, and that is what is advertised; null is still taken.

    Args:
        schema: Of an object.
        result: Of a result: nobody needs its defaults, nor what its models are.
    """
    node = {key: value for key, value in schema.items() if key != "title"}
    if result or node.get("default", 0) is None:
        node.pop("default", None)
    if result and "properties" in node:
        node.pop("description", None)
    given = [kind for kind in node.get("anyOf", ()) if kind.get("type") != "null"]
    if len(given) == 1:
        del node["anyOf"]
        node = given[0] | node
        node.pop("title", None)
    for key in ("properties", "$defs"):
        if key in node:
            node[key] = {name: compact(value, result=result) for name, value in node[key].items()}
    if isinstance(node.get("items"), dict):
        node["items"] = compact(node["items"], result=result)
    return node
