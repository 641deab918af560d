"""Apps: pictures and progress beside the chat, in hosts that show pages (SEP-1865).

Every result says all in words too: a host without pages loses nothing.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from string import Template
from typing import Any, Final

from mcp.server.apps import Apps, ResourceCsp, ResourcePermissions

from castmate import __version__

URI: Final = "ui://castmate/viewer.html"
SHOWN: Final[dict[str, Any]] = {"ui": {"resourceUri": URI}}
"""The `meta` of a tool whose results the page shows."""

# One scope, in this order: a host takes one document, and its policy allows no other.
_STYLES: Final = ("page.css", "job.css", "gallery.css")
_SCRIPTS: Final = (
    "host.js",
    "elements.js",
    "pictures.js",
    "follow.js",
    "job.js",
    "gallery.js",
    "app.js",
)


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
    folder = files("castmate_mcp.agent.extensions") / "viewer"

    def text(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    style, script = "\n".join(map(text, _STYLES)), "\n".join(map(text, _SCRIPTS))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    return Template(text("index.html")).substitute(
        policy=policy, style=style, script=script, version=__version__
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
