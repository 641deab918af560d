"""*Castmate Load Picture*: a finished picture of the server, by its id."""

from __future__ import annotations

from comfy_api.latest import io

from ..client.api import Api
from . import kept
from .pictures import to_tensors


class LoadPicture(io.ComfyNode):
    """Loads what was drawn before, here or by an agent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See ComfyUI."""
        return io.Schema(
            node_id="CastmateLoadPicture",
            display_name="Castmate Load Picture",
            category="castmate",
            description="A picture that the server keeps, by the id that a node or an agent gave.",
            inputs=kept.inputs(),
            outputs=[io.Image.Output("images"), io.Mask.Output("mask")],
        )

    @classmethod
    def validate_inputs(cls, id: str | None = None) -> bool | str:
        """See ComfyUI."""
        return kept.check(id)

    @classmethod
    async def execute(cls, id: str, server: str | None = None) -> io.NodeOutput:
        """See ComfyUI."""
        async with Api.open(server) as api:
            prediction, chosen = await kept.find(api, id)
            urls = prediction["outputs"][chosen]
            return io.NodeOutput(*to_tensors([await api.download(url) for url in urls]))
