"""The parameters of the model as widgets, made from the server's own description of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from comfy_api.latest import io

from ..client.description import current

_log = logging.getLogger("castmate")
SIDES = ("width", "height")
# They come along links, or are how a program wants its answer.
NOT_WIDGETS = {"image", "enable_sync_mode", "enable_base64_output"}
# What everyone sets; everything else is folded away.
PLAIN = {"prompt", "size", "negative_prompt", "seed", "num_inference_steps", "num_images"}
LONG_TEXT = 1000
SIDE_STEP = 8


def widgets(
    properties: Mapping[str, Mapping[str, Any]], without: Collection[str] = ()
) -> list[io.Input]:
    """A widget for each parameter, the prompt first.

    All but the prompt may be missing in a workflow: one that was made for an older server runs on.

    Args:
        properties: JSON schema of each parameter, by its name.
        without: Parameters that a node has its own way to set.
    """
    return [
        widget
        for name, spec in properties.items()
        if name not in NOT_WIDGETS and name not in without
        for widget in _widgets(name, spec)
    ]


def parameters(
    properties: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]
) -> dict[str, Any]:
    """What the widgets of a node hold, as the server takes it; what is left to the model is out."""
    for name in values.keys() - properties.keys() - {*SIDES}:
        _log.warning("Castmate's server does not know `%s`, and draws without it.", name)
    taken = {
        name: value
        for name, value in values.items()
        if name in properties and value is not None and not _is_left(name, properties[name], value)
    }
    if "size" in properties and all(values.get(side) is not None for side in SIDES):
        taken["size"] = f"{values['width']}*{values['height']}"
    return taken


def _widgets(name: str, spec: Mapping[str, Any]) -> Iterator[io.Input]:
    spec = _plain(spec)
    common: dict[str, Any] = {
        "tooltip": spec.get("description"),
        "optional": name != "prompt",
        "advanced": name not in PLAIN or None,
    }
    default = spec.get("default")
    if name == "size":
        yield from _sides(spec, common)
    elif "enum" in spec:
        yield io.Combo.Input(name, options=list(spec["enum"]), default=default, **common)
    elif spec.get("type") == "boolean":
        yield io.Boolean.Input(name, default=bool(default), **common)
    elif spec.get("type") == "integer":
        yield io.Int.Input(name, **common | _numbers(name, spec))
    elif spec.get("type") == "number":
        yield io.Float.Input(name, step=0.05, **common | _numbers(name, spec))
    else:
        multiline = spec.get("maxLength", 0) > LONG_TEXT
        yield io.String.Input(name, default=default or "", multiline=multiline, **common)


def _sides(spec: Mapping[str, Any], common: Mapping[str, Any]) -> Iterator[io.Input]:
    defaults = re.findall(r"\d+", str(spec.get("default"))) or (None, None)
    for side, default in zip(SIDES, defaults):
        yield io.Int.Input(
            side,
            default=default and int(default),
            min=spec.get("minimum"),
            max=spec.get("maximum"),
            step=SIDE_STEP,
            **{**common, "tooltip": f"The {side} of the pictures, in pixels."},
        )


def _numbers(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    low, default = spec.get("minimum", 0), spec.get("default")
    if name == "seed":
        # -1 draws one on the server, which ComfyUI could neither show nor repeat: it draws its own.
        return {"min": 0, "max": spec.get("maximum"), "default": 0, "control_after_generate": True}
    limits = {"min": low, "max": spec.get("maximum"), "default": default}
    if _by_model(name, spec):
        low -= 1
        tooltip = f"{spec.get('description', '')} {low} leaves it to the server.".strip()
        limits |= {"min": low, "default": low if default is None else default, "tooltip": tooltip}
    return limits


def _by_model(name: str, spec: Mapping[str, Any]) -> bool:
    """Whether each model has a default of its own, which a server reports once it knows its model.

    Told or not, it can be left to the model: what was made without a server runs with one.
    """
    return any(one.get("default") is None for one in (spec, current.bundled.get(name, spec)))


def _is_left(name: str, spec: Mapping[str, Any], value: Any) -> bool:
    spec = _plain(spec)
    is_number = spec.get("type") in ("integer", "number")
    return is_number and _by_model(name, spec) and value < spec.get("minimum", 0)


def _plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a parameter that may be null, as that of what else it may be."""
    kinds = [one for one in spec.get("anyOf", ()) if one.get("type") != "null"]
    rest = {key: value for key, value in spec.items() if key != "anyOf"}
    return {**kinds[0], **rest} if kinds else rest
