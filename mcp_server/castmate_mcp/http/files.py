"""`/files/...`: stored pictures by signed, expiring addresses, without a key."""

from __future__ import annotations

import mimetypes
import time
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from castmate_mcp.http.envelope import Refusal
from castmate_mcp.http.gateway import gateway

HEADERS: Final = {
    "cache-control": "private, max-age=86400, immutable",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "referrer-policy": "no-referrer",
}
"""What was stored never changes, and is only for who has the address."""
_REDIRECT_S: Final = 300.0


async def serve_file(request: Request) -> Response:
    """A picture: parts of it (Range) and its ETag where the storage is a folder."""
    here, now = gateway(request).castmate, time.time()
    storage = here.storage
    if (name := storage.verify(request.scope["raw_path"].decode("latin-1"), now)) is None:
        raise Refusal(
            403,
            "This address was not given by this server, or has expired; ask for the prediction "
            "again, which gives a new one.",
        )
    gone = Refusal(404, "The file is no longer in the storage.")
    await here.storyboards.make_if_sheet(name)
    await storage.make_if_preview(name)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if (path := storage.local_path(name)) is not None:
        if not path.is_file():
            raise gone
        return FileResponse(path, media_type=kind, headers=HEADERS)
    url = storage.signed_url(name, now, _REDIRECT_S)
    if here.settings.presigned_urls and url.startswith(("https:", "http:")):
        return RedirectResponse(url, 302, {"cache-control": "no-store"})
    try:
        return Response(await storage.get(name), media_type=kind, headers=HEADERS)
    except FileNotFoundError:
        raise gone from None


ROUTES: Final = (Route("/files/{path:path}", serve_file, methods=["GET"]),)
