"""Castmate's nodes for ComfyUI: a thin client of a Castmate server, without a model of its own."""

from __future__ import annotations

from typing import Any


async def comfy_entrypoint() -> Any:
    """What ComfyUI calls to get the nodes; only here is anything of ComfyUI imported."""
    from .nodes.extension import Castmate

    return Castmate()
