"""*Castmate Identity*: how close the character of finished pictures is to the reference's."""

from __future__ import annotations

from comfy_api.latest import io

from ..client.api import Api
from ..client.errors import CastmateError
from . import kept


class Identity(io.ComfyNode):
    """Tells what the server has measured when it drew a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See ComfyUI."""
        return io.Schema(
            node_id="CastmateIdentity",
            display_name="Castmate Identity",
            category="castmate",
            description="How close the character of a picture is to the reference's: 1 is the same "
            "character, 0 another one.",
            inputs=kept.inputs(),
            outputs=[
                io.Float.Output("scores", is_output_list=True, tooltip="0 to 1, for each picture."),
                io.String.Output(
                    "verdicts", is_output_list=True, tooltip="same, drifted or another."
                ),
            ],
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
        judged = (prediction.get("identity") or [None] * len(prediction["outputs"]))[chosen]
        if None in judged:
            why = prediction.get("no_identity") or "A flagged picture is not judged."
            raise CastmateError(f"{id} has no identity score: {why}")
        return io.NodeOutput([one["score"] for one in judged], [one["verdict"] for one in judged])
