"""The few names of ComfyUI's API that our nodes use; `test_real.py` compares them with its own."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

from PIL import Image as Pillow


class _Input:
    def __init__(
        self,
        id: str,
        optional: bool = False,
        tooltip: str | None = None,
        advanced: bool | None = None,
        **more: Any,
    ) -> None:
        self.id, self.optional, self.tooltip, self.advanced = id, optional, tooltip, advanced
        self.__dict__.update(more)


class _Output:
    def __init__(
        self,
        id: str | None = None,
        display_name: str | None = None,
        tooltip: str | None = None,
        is_output_list: bool = False,
    ) -> None:
        self.id, self.is_output_list = id, is_output_list


class _Number(_Input):
    def __init__(
        self,
        id: str,
        optional: bool = False,
        tooltip: str | None = None,
        default: float | None = None,
        min: float | None = None,
        max: float | None = None,
        step: float | None = None,
        force_input: bool | None = None,
        advanced: bool | None = None,
        **more: Any,
    ) -> None:
        super().__init__(id, optional, tooltip, advanced, **more)
        self.default, self.min, self.max, self.step = default, min, max, step
        self.force_input = force_input


class _Link:
    Input = _Input
    Output = _Output


class Image(_Link):
    """Pictures."""


class Mask(_Link):
    """What is transparent."""


class Int(_Link):
    """Whole numbers."""

    class Input(_Number):
        def __init__(
            self, id: str, control_after_generate: bool | None = None, **more: Any
        ) -> None:
            super().__init__(id, **more)
            self.control_after_generate = control_after_generate


class Float(_Link):
    """Numbers."""

    Input = _Number  # type: ignore[assignment]


class String(_Link):
    """Text."""

    class Input(_Input):
        def __init__(
            self,
            id: str,
            multiline: bool = False,
            default: str | None = None,
            force_input: bool | None = None,
            **more: Any,
        ) -> None:
            super().__init__(id, **more)
            self.multiline, self.default, self.force_input = multiline, default, force_input


class Boolean(_Link):
    """Yes or no."""

    class Input(_Input):
        def __init__(
            self,
            id: str,
            default: bool | None = None,
            force_input: bool | None = None,
            **more: Any,
        ) -> None:
            super().__init__(id, **more)
            self.default, self.force_input = default, force_input


class Combo(_Link):
    """One of a list."""

    class Input(_Input):
        def __init__(
            self,
            id: str,
            options: list[str] | None = None,
            default: str | None = None,
            **more: Any,
        ) -> None:
            super().__init__(id, **more)
            self.options, self.default = options, default


def Custom(io_type: str) -> type[_Link]:
    """A type of our own."""
    return type(io_type, (_Link,), {})


class Schema:
    """What a node is."""

    def __init__(
        self,
        node_id: str,
        display_name: str | None = None,
        category: str = "sd",
        inputs: list[_Input] | None = None,
        outputs: list[_Output] | None = None,
        description: str = "",
        search_aliases: list[str] | None = None,
    ) -> None:
        ids = [one.id for one in inputs or ()]
        if len({*ids}) < len(ids):
            raise ValueError(f"Input ids must be unique, but those of {node_id} are {ids}.")
        self.node_id, self.display_name, self.category = node_id, display_name, category
        self.inputs, self.outputs, self.description = inputs or [], outputs or [], description


class ComfyNode:
    """Base of every node."""


class NodeOutput:
    """What a node gives."""

    def __init__(self, *args: Any) -> None:
        self.args = args


class ComfyExtension:
    """Base of every extension."""


class Execution:
    """Where a node reports to."""

    reports: list[tuple[float, float, Pillow.Image | None]] = []  # noqa: RUF012

    async def set_progress(
        self,
        value: float,
        max_value: float,
        node_id: str | None = None,
        preview_image: Pillow.Image | None = None,
    ) -> None:
        self.reports.append((value, max_value, preview_image))


class ComfyAPI:
    """The API."""

    def __init__(self) -> None:
        self.execution = Execution()


class InterruptProcessingException(Exception):
    """The user has interrupted."""


class Interruption:
    """The button."""

    pressed = False

    @classmethod
    def throw_exception_if_processing_interrupted(cls) -> None:
        if cls.pressed:
            cls.pressed = False
            raise InterruptProcessingException


def install() -> None:
    """Let our nodes import all this under ComfyUI's names."""
    io = SimpleNamespace(
        Boolean=Boolean,
        Combo=Combo,
        ComfyNode=ComfyNode,
        Custom=Custom,
        Float=Float,
        Image=Image,
        Input=_Input,
        Int=Int,
        Mask=Mask,
        NodeOutput=NodeOutput,
        Schema=Schema,
        String=String,
    )
    latest = {"ComfyAPI": ComfyAPI, "ComfyExtension": ComfyExtension, "io": io}
    management = {
        "InterruptProcessingException": InterruptProcessingException,
        "throw_exception_if_processing_interrupted": (
            Interruption.throw_exception_if_processing_interrupted
        ),
    }
    _module("comfy_api")
    _module("comfy_api.latest", **latest)
    _module("comfy")
    sys.modules["comfy"].model_management = _module("comfy.model_management", **management)  # type: ignore[attr-defined]


def _module(name: str, **values: Any) -> ModuleType:
    module = sys.modules[name] = ModuleType(name)
    module.__dict__.update(values)
    return module
