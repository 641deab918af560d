"""Apps: pictures and progress beside the chat, in hosts that show pages (SEP-1865).

Every result says all in words too: a host without pages loses nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from mcp.server.apps import Apps, ResourceCsp, ResourcePermissions

from castmate import __version__
from castmate_mcp.page import SHARED, Page

URI: Final = "ui://castmate/viewer.html"
SHOWN: Final[dict[str, Any]] = {"ui": {"resourceUri": URI}}
"""The `meta` of a tool whose results the page shows."""

_HERE: Final = Path(__file__).parent / "viewer"
_STYLES: Final = ("page.css", "job.css", "gallery.css")


def viewer() -> Apps:
    """The extension with the page; tools name it by `SHOWN`."""
    apps = Apps()
    apps.add_html_resource(
        URI,
        page(),
        name="viewer",
        title="Pictures and progress",
        description="Shows jobs while they are drawn, pictures, and the library.",
        csp=ResourceCsp(connect_domains=[], resource_domains=[], frame_domains=[]),
        permissions=ResourcePermissions(clipboard_write={}),
        prefers_border=True,
    )
    return apps


def page() -> str:
    """The page, complete: it loads nothing, runs its own script alone, makes no HTML of text."""
    made = Page.of(_HERE / "app.js", [SHARED / name for name in _STYLES])
    policy = made.policy(img_src="data:")
    return made.document(_HERE / "index.html", {"policy": policy, "version": __version__})
