"""While a node waits for the server: its bar, its preview, and the button that stops it."""

from __future__ import annotations

import base64
import io as streams
from collections.abc import Sequence
from typing import Any

import comfy.model_management
from comfy_api.latest import ComfyAPI
from PIL import Image

from ..client.drawing import Report
from ..client.events import Event


def check() -> None:
    """Raise where the user has interrupted; ComfyUI stops no node that does not ask."""
    comfy.model_management.throw_exception_if_processing_interrupted()


class Bar:
    """One bar for all that a node draws."""

    def __init__(self, steps: Sequence[int]) -> None:
        """Nothing is done yet.

        Args:
            steps: How many each of its generations takes.
        """
        self._done, self._steps = [0] * len(steps), list(steps)
        self._execution: Any = ComfyAPI().execution

    def reporter(self, number: int) -> Report:
        """What gets the events of one of the generations."""

        async def report(event: Event) -> None:
            if event.name == "step":
                self._done[number], self._steps[number] = event.data["step"], event.data["total"]
                await self._show(None)
            elif event.name == "preview":
                await self._show(_picture(event.data["image"]))

        return report

    async def finished(self, number: int) -> None:
        """One of the generations is over, whether or not its steps were reported."""
        self._done[number] = self._steps[number]
        await self._show(None)

    async def _show(self, preview: Image.Image | None) -> None:
        await self._execution.set_progress(
            value=sum(self._done), max_value=sum(self._steps), preview_image=preview
        )


def _picture(data_uri: str) -> Image.Image:
    return Image.open(streams.BytesIO(base64.b64decode(data_uri.partition(",")[2])))
