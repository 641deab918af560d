"""Describes invalid parameters in sentences: which, what is allowed, what to do."""

from __future__ import annotations

import difflib
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from castmate.errors import Problem
from castmate.shorten import shorten
from castmate.sizes import SIZE_RULE

OPAQUE_FORMAT: Final = "opaque_format"
"""Type of the error for a format that cannot hold transparency."""


def problems_of(model: type[BaseModel], error: ValidationError) -> list[Problem]:
    """The problems with the arguments of `model`, one for each bad parameter."""
    details = error.errors(include_url=False, include_context=False)
    return [_problem(model, detail) for detail in details]


def _problem(model: type[BaseModel], detail: ErrorDetails) -> Problem:
    name = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, model.model_fields, 1)
        known = ", ".join(model.model_fields)
        return Problem(
            name, "unknown parameter", known, f"did you mean `{near[0]}`?" if near else ""
        )
    if detail["type"] == "missing":
        field_ = model.model_fields.get(str(detail["loc"][0]))
        meaning = (field_ and field_.description) or ""
        allowed = describe_range(model, name)
        needs = f"{allowed}: " if allowed.startswith("a list") else ""
        return Problem(name, "is required", f"{needs}{meaning}")
    if detail["type"] == OPAQUE_FORMAT:
        return Problem(
            "output_format", "jpeg has no transparency", "png, webp", "Or set background to scene."
        )
    text = repr(detail["input"])
    shown = shorten(text, 60)
    if shown != text:
        shown += f" ({len(str(detail['input']))} characters)"
    hint = "Take out the NUL character." if "\0" in str(detail["input"]) else ""
    return Problem(name, f"{shown} is not allowed", describe_range(model, name), hint)


def describe_range(model: type[BaseModel], name: str) -> str:
    """The allowed values of a parameter, in words, from the schema itself."""
    schema = model.model_json_schema()
    spec = schema["properties"].get(name.partition(".")[0], {})
    if name == "size" and "pattern" in spec:
        return SIZE_RULE
    spec = next((one for one in spec.get("anyOf", ()) if one.get("type") != "null"), spec)
    if "$ref" in spec:
        spec = schema["$defs"][spec["$ref"].rpartition("/")[2]]
    if "." in name and "maxLength" in spec.get("items", {}):
        spec = spec["items"]
    low, high = spec.get("minLength", 0), spec.get("maxLength")
    match spec:
        case {"enum": values}:
            return ", ".join(map(str, values))
        case {"type": "string", "format": "date-time"}:
            return "a time such as 2026-11-30T12:00:00Z"
        case {"type": "string"}:
            return (
                f"text of {low}..{high} characters" if high else f"text, at least {low} character"
            )
        case {"type": "array", "maxItems": most}:
            return f"a list of {spec.get('minItems', 0)}..{most} texts"
        case {"type": "object"}:
            return "an object"
        case {"type": kind, "minimum": least}:
            what = "a whole number" if kind == "integer" else "a number"
            to = f" to {spec['maximum']:.10g}" if "maximum" in spec else ""
            return f"{what} from {least:g}{to}"
    return "true or false"
