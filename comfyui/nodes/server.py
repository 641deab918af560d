"""*Castmate Server*: which server draws, where it is not the one of this machine."""

from __future__ import annotations

from comfy_api.latest import io

from ..client import address
from ..client.errors import CastmateError
from .types import ServerLink

TOOLTIP = (
    f"Its address. The key is never saved in a workflow: set {address.KEY_VARIABLE} and "
    f"{address.URL_VARIABLE} before you start ComfyUI, or write lines `ADDRESS KEY` into "
    "~/.config/castmate/comfyui-keys."
)


class Server(io.ComfyNode):
    """Names a server for other nodes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See ComfyUI."""
        url = io.String.Input("url", default=address.default_url(), tooltip=TOOLTIP)
        return io.Schema(
            node_id="CastmateServer",
            display_name="Castmate Server",
            category="castmate",
            description="Which Castmate server draws. Without this node it is the one of "
            f"{address.URL_VARIABLE}, or `castmate serve` on this machine.",
            inputs=[url],
            outputs=[ServerLink.Output("server")],
        )

    @classmethod
    def validate_inputs(cls, url: str | None = None) -> bool | str:
        """See ComfyUI."""
        try:
            return bool(url is None or address.normal(url))
        except CastmateError as error:
            return str(error)

    @classmethod
    def execute(cls, url: str) -> io.NodeOutput:
        """See ComfyUI."""
        return io.NodeOutput(address.normal(url))
