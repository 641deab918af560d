"""`/` and `/studio`: the page, as one document that asks for nothing else before it is seen."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from castmate import __version__
from castmate_mcp.http.gateway import Gateway, gateway
from castmate_mcp.page import SHARED, Page

_HERE: Final = Path(__file__).parent / "page"
_SHARED_STYLES: Final = ("page.css", "job.css", "gallery.css")
_STYLES: Final = (
    "shell.css",
    "dialog.css",
    "crop.css",
    "draw.css",
    "pictures.css",
    "boards.css",
    "status.css",
)
_HEADERS: Final = {
    "cache-control": "no-cache",  # asked for again, and answered with 304
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


async def studio(request: Request) -> Response:
    """The page; it holds nothing of anyone, so it needs no key. What it asks for does."""
    document, tag = _document()
    headers = _HEADERS | {"etag": tag, "content-security-policy": _policy(gateway(request))}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(document, headers=headers)


@functools.cache
def _page() -> Page:
    styles = [SHARED / name for name in _SHARED_STYLES] + [_HERE / name for name in _STYLES]
    return Page.of(_HERE / "app.js", styles)


@functools.cache
def _document() -> tuple[str, str]:
    document = _page().document(_HERE / "index.html", {"version": __version__})
    return document, f'"{hashlib.sha256(document.encode()).hexdigest()[:32]}"'


def _policy(here: Gateway) -> str:
    images = " ".join(["'self'", "data:", "blob:", *_bucket(here)])
    return _page().policy(img_src=images, connect_src="'self'", frame_ancestors="'none'")


def _bucket(here: Gateway) -> list[str]:
    """Where addresses of pictures lead to, if that is not this server."""
    castmate = here.castmate
    if not castmate.settings.presigned_urls or castmate.storage.local_path("") is not None:
        return []
    url = urlsplit(castmate.storage.signed_url("picture", 0.0, 60.0))
    return [f"{url.scheme}://{url.netloc}"] if url.scheme in ("http", "https") else []


ROUTES: Final = (Route("/", studio), Route("/studio", studio))
