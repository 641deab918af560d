"""The parameters of the model as widgets, made from the server's own description of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from comfy_api.latest import io

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
    """What the widgets of a node hold, as the server takes it."""
    for name in values.keys() - properties.keys() - {*SIDES}:
        _log.warning("Castmate's server does not know `%s`, and draws without it.", name)
    taken = {name: value for name, value in values.items() if name in properties}
    if "size" in properties and all(values.get(side) is not None for side in SIDES):
        taken["size"] = f"{values['width']}*{values['height']}"
    return {name: value for name, value in taken.items() if value is not None}


def _widgets(name: str, spec: Mapping[str, Any]) -> Iterator[io.Input]:
    spec = next((one for one in spec.get("anyOf", ()) if one.get("type") != "null"), {}) | {
        key: value for key, value in spec.items() if key != "anyOf"
    }
    common: dict[str, Any] = {
        "tooltip": spec.get("description"),
        "optional": name != "prompt",
        "advanced": name not in PLAIN or None,
    }
    default = spec.get("default")
    if default is None and name != "prompt":
        common["force_input"] = True  # the server has a default of its own, which is not known here
    if name == "size":
        yield from _sides(spec, common)
    elif "enum" in spec:
        common.pop("force_input", None)
        yield io.Combo.Input(name, options=list(spec["enum"]), default=default, **common)
    elif spec.get("type") == "boolean":
        yield io.Boolean.Input(name, default=default, **common)
    elif spec.get("type") == "integer":
        yield io.Int.Input(name, **_numbers(name, spec), **common)
    elif spec.get("type") == "number":
        yield io.Float.Input(name, step=0.05, **_numbers(name, spec), **common)
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
    limits = {
        "min": spec.get("minimum"),
        "max": spec.get("maximum"),
        "default": spec.get("default"),
    }
    if name == "seed":
        # -1 draws one on the server, which ComfyUI could neither show nor repeat: it draws its own.
        limits["min"] = limits["default"] = 0
        limits["control_after_generate"] = True
    return limits
