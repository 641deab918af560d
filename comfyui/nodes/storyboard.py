"""*Castmate Storyboard*: the character in many scenes, as a batch and as one sheet."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..client.api import Api
from ..client.description import current
from ..client.drawing import Drawn, Reference, draw
from ..client.errors import CastmateError, Refused
from . import running, subject
from .generate import tell_warnings, total_steps
from .parameters import parameters, widgets
from .pictures import grid, to_tensors

AT_A_TIME = 4
MAX_PANELS = 64
TRIES = 3  # while others fill the queue
WAIT_S = 1.0  # between two of them
PROMPTS = "standing, front view\nstanding, side view\nsitting on a chair\nrunning"


class Storyboard(io.ComfyNode):
    """Draws a picture for each line of a list."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See ComfyUI."""
        return io.Schema(
            node_id="CastmateStoryboard",
            display_name="Castmate Storyboard",
            category="castmate",
            description="The same character in many scenes: a batch, and a sheet of all. Panel i "
            "has the seed + i, so that Castmate Generate draws any of them again.",
            search_aliases=["character sheet", "InstantCharacter"],
            inputs=[
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default=PROMPTS,
                    tooltip="A scene on each line; lines that begin with # are left out.",
                ),
                io.String.Input(
                    "style_words",
                    default="",
                    optional=True,
                    tooltip="Is added to every scene, such as: watercolour, soft light.",
                ),
                io.Int.Input(
                    "columns",
                    default=0,
                    min=0,
                    max=MAX_PANELS,
                    optional=True,
                    tooltip="Pictures side by side on the sheet; 0 makes it about square.",
                ),
                *widgets(current.properties, without=("prompt", "num_images")),
                *subject.links(),
            ],
            outputs=[
                io.Image.Output("images"),
                io.Image.Output("sheet"),
                io.String.Output("ids", is_output_list=True),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompts: str | None = None) -> bool | str:
        """See ComfyUI."""
        if prompts is None or 0 < len(_panels(prompts)) <= MAX_PANELS:
            return True
        return f"write 1..{MAX_PANELS} scenes, one on each line"

    @classmethod
    async def execute(
        cls,
        prompts: str,
        style_words: str = "",
        columns: int = 0,
        character: Any = None,
        image: Any = None,
        mask: Any = None,
        server: str | None = None,
        **values: Any,
    ) -> io.NodeOutput:
        """See ComfyUI."""
        reference, url = subject.find(character, image, mask, server)
        words = style_words.strip()
        scenes = [f"{scene}, {words}" if words else scene for scene in _panels(prompts)]
        if not 0 < len(scenes) <= MAX_PANELS:
            raise CastmateError(f"`prompts` has {len(scenes)} scenes; write 1..{MAX_PANELS}.")
        async with Api.open(url) as api:
            await current.refresh(api)
            common = parameters(current.properties, values)
            seed = common.get("seed", 0)
            panels = [
                {**common, "prompt": scene, "seed": seed + number}
                for number, scene in enumerate(scenes)
            ]
            drawn = await _draw_all(api, reference, panels)
        for one in drawn:
            tell_warnings(one)
        images, _ = to_tensors([picture for one in drawn for picture in one.pictures])
        ids = [name for one in drawn for name in one.ids]
        return io.NodeOutput(images, grid(images, columns), ids)


def _panels(prompts: str) -> list[str]:
    lines = (line.strip() for line in prompts.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


async def _draw_all(api: Api, reference: Reference, panels: list[dict[str, Any]]) -> list[Drawn]:
    """Every panel, a few at a time; one that fails stops the others."""
    bar = running.Bar([total_steps(panel) for panel in panels])
    places = asyncio.Semaphore(AT_A_TIME)
    busy: set[int] = set()

    async def one(number: int, panel: Mapping[str, Any]) -> Drawn:
        refused: Refused | None = None
        async with places:
            alone = 0
            while alone < TRIES:
                busy.add(number)
                try:
                    drawn = await draw(api, reference, panel, bar.reporter(number), running.check)
                    await bar.finished(number)
                    return drawn
                except Refused as error:
                    if not error.too_much:
                        raise
                    refused = error
                finally:
                    busy.discard(number)
                alone = 0 if busy else alone + 1  # others of ours end, and leave it their place
                await asyncio.sleep(WAIT_S)
        assert refused is not None
        raise refused

    tasks = [asyncio.ensure_future(one(*panel)) for panel in enumerate(panels)]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
