"""The reference picture that a caller names: an address, an upload or output of ours, a data URI.

A path of this machine is never read: callers are elsewhere.
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Final
from urllib.parse import urlsplit

from castmate.errors import ImageRejected
from castmate.fetch import fetch
from castmate.images import MAX_BYTES, Reference
from castmate.references import resolve
from castmate_mcp.gateway import Gateway

ALLOWED: Final = (
    "an https URL that this server can fetch, the download_url of an upload to it, an output of an "
    "earlier prediction, or data:image/png;base64,..."
)
# Below the 10 s after which there are clients that submit again.
FETCH_S: Final = 8.0


async def find_reference(gateway: Gateway, source: str, base_url: str) -> Reference:
    """Get and check a picture.

    Raises:
        ImageRejected: Says why, and what is allowed instead.
        Unavailable: The storage cannot be reached.
    """
    if not source[:16].lower().startswith(("https:", "http:", "data:")):
        shown = source if len(source) <= 60 else f"{source[:57]}..."
        raise ImageRejected(
            f"{shown!r} is no address", allowed=ALLOWED, hint="Upload the file first."
        )
    async with gateway.decoding:  # a few pixels are many bytes once they are decoded
        if (own := await _stored(gateway, source, base_url)) is not None:
            return own
        settings = gateway.service.settings
        get = functools.partial(
            fetch, max_bytes=MAX_BYTES, allow_http=settings.allow_http, deadline_s=FETCH_S
        )
        return await resolve(source, roots=(), allow_http=settings.allow_http, fetch=get)


async def _stored(gateway: Gateway, source: str, base_url: str) -> Reference | None:
    """A file of ours, whatever name this server has: its signature says that it is."""
    if source[:5].lower() == "data:":
        return None
    try:
        parts = urlsplit(source)
    except ValueError:
        return None
    storage = gateway.service.jobs.storage
    name = storage.verify(parts.path, time.time())
    if name is None:
        if parts.path.startswith("/files/") and source.startswith(f"{base_url}/"):
            raise ImageRejected(
                f"{parts.path} was not given by this server, or has expired",
                allowed=ALLOWED,
                hint="Upload the picture again, or ask for the prediction again.",
            )
        return None
    try:
        data = await storage.get(name)
    except FileNotFoundError:
        raise ImageRejected(
            f"{name} is no longer in the storage", hint="Upload the picture again."
        ) from None
    return await asyncio.to_thread(Reference.from_bytes, data, name)
