"""The reference picture that a caller names: an address, an upload or output of ours, a data URI.

A path of this machine is never read: callers are elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from cachetools import LRUCache

from castmate.errors import ImageRejected
from castmate.fetch import fetch
from castmate.images import MAX_BYTES, Reference
from castmate.references import is_base64, resolve
from castmate.service import Castmate
from castmate.shorten import shorten
from castmate_mcp.settings import ServerSettings

ALLOWED: Final = (
    "an https URL that this server can fetch, the download_url of an upload to it, an output of an "
    "earlier prediction, or data:image/png;base64,..."
)
# Below the 10 s after which there are clients that submit again.
FETCH_S: Final = 8.0
DECODED_AT_A_TIME: Final = 2
REMEMBERED_BYTES: Final = 64 * 2**20


Admit = Callable[[], Awaitable[None]]


class References:
    """Finds references, and remembers uploads that were checked: one is drawn from many times."""

    def __init__(self, castmate: Castmate[ServerSettings]) -> None:
        self._settings, self._storage = castmate.settings, castmate.storage
        self._decoding = asyncio.Semaphore(DECODED_AT_A_TIME)
        self._checked: LRUCache[str, Reference] = LRUCache(REMEMBERED_BYTES, _size)

    async def find(self, source: str, base_url: str, admit: Admit) -> Reference:
        """Get and check a picture.

        Args:
            source: What the caller named.
            base_url: Our address as the caller sees it.
            admit: Awaited before anything that costs: raises where there is no room.

        Raises:
            ImageRejected: Says why, and what is allowed instead.
            Unavailable: The storage cannot be reached.
        """
        is_address = source[:16].lower().startswith(("https:", "http:", "data:"))
        if not is_address and not is_base64(source):
            raise ImageRejected(
                f"{shorten(source, 60)!r} is no address",
                allowed=ALLOWED,
                hint="Upload the file first.",
            )
        name = self._own_name(source, base_url)
        if name is not None and (known := self._checked.get(name)) is not None:
            return known
        await admit()
        async with self._decoding:  # a few bytes are many pixels once they are decoded
            if name is not None:
                return await self._read(name)
            allow_http = self._settings.allow_http
            get = functools.partial(
                fetch,
                max_bytes=MAX_BYTES,
                allow_http=allow_http,
                use_proxy=self._settings.fetch_proxy,
                deadline_s=FETCH_S,
            )
            return await resolve(source, roots=(), allow_http=allow_http, fetch=get)

    def _own_name(self, source: str, base_url: str) -> str | None:
        """The name of a file of ours, whatever address we have: its signature says that it is."""
        if source[:5].lower() == "data:":
            return None
        ours = source.startswith(f"{base_url}/")
        try:
            path = source.removeprefix(base_url) if ours else urlsplit(source).path
        except ValueError:
            return None
        name = self._storage.verify(path, time.time())
        if name is None and ours and path.startswith("/files/"):
            raise ImageRejected(
                f"{path} was not given by this server, or has expired",
                allowed=ALLOWED,
                hint="Upload the picture again, or ask for the prediction again.",
            )
        return name

    async def _read(self, name: str) -> Reference:
        try:
            data = await self._storage.get(name)
        except FileNotFoundError:
            raise ImageRejected(
                f"{name} is no longer in the storage", hint="Upload the picture again."
            ) from None
        reference = await Reference.read(data, name)
        with contextlib.suppress(ValueError):  # larger than all that is remembered
            self._checked[name] = reference
        return reference


def _size(reference: Reference) -> int:
    width, height = reference.image.size
    return len(reference.data) + 3 * width * height
