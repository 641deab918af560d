"""*Castmate Generate*: the character in a new scene."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io

from ..client.api import Api
from ..client.description import current
from ..client.drawing import Drawn, draw
from . import running, subject
from .parameters import parameters, widgets
from .pictures import to_tensors

_log = logging.getLogger("castmate")


class Generate(io.ComfyNode):
    """Draws pictures of a character on the server."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See ComfyUI."""
        return io.Schema(
            node_id="CastmateGenerate",
            display_name="Castmate Generate",
            category="castmate",
            description="The same character in a new scene, drawn by a Castmate server.",
            search_aliases=["InstantCharacter", "consistent character"],
            inputs=[*widgets(current.properties), *subject.links()],
            outputs=[
                io.Image.Output("images"),
                io.Mask.Output("mask", tooltip="What is transparent in them."),
                io.String.Output(
                    "ids", is_output_list=True, tooltip="For Castmate Load Picture, and for agents."
                ),
                io.Int.Output("seeds", is_output_list=True),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool | str:
        """See ComfyUI."""
        return bool(prompt is None or prompt.strip()) or "write what the character does, and where"

    @classmethod
    async def execute(
        cls,
        character: Any = None,
        image: Any = None,
        mask: Any = None,
        server: str | None = None,
        **values: Any,
    ) -> io.NodeOutput:
        """See ComfyUI."""
        reference, url = subject.find(character, image, mask, server)
        async with Api.open(url) as api:
            await current.refresh(api)
            inputs = parameters(current.properties, values)
            bar = running.Bar([total_steps(inputs)])
            drawn = await draw(api, reference, inputs, bar.reporter(0), running.check)
            await bar.finished(0)
        tell_warnings(drawn)
        images, masks = to_tensors(drawn.pictures)
        return io.NodeOutput(images, masks, list(drawn.ids), list(drawn.seeds))


def total_steps(inputs: dict[str, Any]) -> int:
    """How many steps a generation takes, until the server says it."""
    return int(inputs.get("num_inference_steps", 1)) * int(inputs.get("num_images", 1))


def tell_warnings(drawn: Drawn) -> None:
    """Show in ComfyUI's log what the server ignored, cut or replaced."""
    for warning in drawn.warnings:
        _log.warning("Castmate: %s", warning)
