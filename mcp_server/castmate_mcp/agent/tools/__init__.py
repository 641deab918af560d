"""What agents can do, one subject a module; each adds its tools to a server."""

from typing import Final

from mcp.types import ToolAnnotations

READS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
"""Tells hosts that a tool only reads this server's data; other tools have their own hints."""
