"""*Castmate Load Picture*: a finished picture of the server, by its id."""

from __future__ import annotations

import re

from comfy_api.latest import io

from ..client.api import Api
from ..client.errors import CastmateError
from .pictures import to_tensors
from .types import ServerLink

_ID = re.compile(r"(?:(?:img|job)_)?([0-9a-f]{32})(?:-(\d))?")
ALLOWED = "the id of a picture (img_...), or of a job for all of its pictures (job_...)"


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
            inputs=[
                io.String.Input("id", default="", tooltip=f"{ALLOWED[0].upper()}{ALLOWED[1:]}."),
                ServerLink.Input("server", optional=True),
            ],
            outputs=[io.Image.Output("images"), io.Mask.Output("mask")],
        )

    @classmethod
    def validate_inputs(cls, id: str | None = None) -> bool | str:
        """See ComfyUI."""
        if id is None or _ID.fullmatch(id.strip()):
            return True
        return f"{id!r} is no id; write {ALLOWED}"

    @classmethod
    async def execute(cls, id: str, server: str | None = None) -> io.NodeOutput:
        """See ComfyUI."""
        match = _ID.fullmatch(id.strip())
        if match is None:
            raise CastmateError(f"{id!r} is no id; write {ALLOWED}.")
        async with Api.open(server) as api:
            outputs = (await api.result(match[1]))["outputs"]
            chosen = outputs if match[2] is None else outputs[int(match[2]) :][:1]
            if not chosen:
                raise CastmateError(f"{id} has no finished picture at {api.url}.")
            return io.NodeOutput(*to_tensors([await api.download(url) for url in chosen]))
