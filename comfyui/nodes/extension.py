"""What ComfyUI gets: every node, defined as the server describes itself."""

from __future__ import annotations

import asyncio

from comfy_api.latest import ComfyExtension, io

from ..client.api import Api
from ..client.description import current
from ..client.errors import CastmateError
from .character import Character, SavedCharacter
from .generate import Generate
from .identity import Identity
from .load import LoadPicture
from .server import Server
from .storyboard import Storyboard

ASK_S = 2.0  # the start of ComfyUI waits no longer for a server


class Castmate(ComfyExtension):
    """Castmate's extension of ComfyUI."""

    async def on_load(self) -> None:
        """Ask the server for its parameters; without one, the nodes bring their own."""
        try:
            async with Api.open() as api:
                await asyncio.wait_for(current.refresh(api), ASK_S)
        except (CastmateError, asyncio.TimeoutError):
            pass

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node."""
        return [Server, Character, SavedCharacter, Generate, Storyboard, LoadPicture, Identity]
