"""The reference picture that a caller names: an address, an upload or output of ours, a data URI.

A path of this machine is never read: callers are elsewhere.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from cachetools import LRUCache

from castmate.errors import ImageRejected
from castmate.fetch import DEADLINE_S, fetch
from castmate.images import MAX_BYTES, Reference
from castmate.jobs.keys import Key
from castmate.jobs.names import could_be_name, no_such_name
from castmate.references import Fetch, is_base64, resolve
from castmate.service import Castmate
from castmate.several import MAX_TOGETHER, together
from castmate.shorten import shorten
from castmate_mcp.http.ids import CharacterName, ImageName
from castmate_mcp.http.limits import Bound
from castmate_mcp.http.saved import character_named, stored_names
from castmate_mcp.settings import ServerSettings

ALLOWED: Final = (
    "an https URL that this server can fetch, the download_url of an upload to it, an output of an "
    "earlier prediction, data:image/png;base64,..., the id of a picture (img_...) or of a "
    "character (chr_...), or a character's name"
)
# Below the 10 s after which there are clients that submit again.
FETCH_S: Final = 8.0
REMEMBERED_BYTES: Final = 64 * 2**20


Admit = Callable[[], Awaitable[None]]


class References:
    """Finds references, and remembers uploads that were checked: one is drawn from many times."""

    def __init__(self, castmate: Castmate[ServerSettings], fetches: Callable[[], Bound]) -> None:
        self._castmate = castmate
        self._settings, self._storage = castmate.settings, castmate.storage
        self._fetches = fetches
        self._checked: LRUCache[str, Reference] = LRUCache(REMEMBERED_BYTES, _size)

    async def find(self, source: str, base_url: str, key: Key, admit: Admit) -> Reference:
        """Get and check a picture.

        Args:
            source: What the caller named.
            base_url: Our address as the caller sees it.
            key: Whose call it is.
            admit: Awaited before anything that costs: raises where there is no room.

        Raises:
            ImageRejected: Says why, and what is allowed instead.
            Overloaded: The caller has too many pictures fetched at this moment.
            Unavailable: The storage cannot be reached.
        """
        if saved := ImageName.parse(source) or CharacterName.parse(source):
            await admit()
            return await self._saved(saved, key)
        is_address = source[:16].lower().startswith(("https:", "http:", "data:"))
        if not is_address and not is_base64(source):
            if saved := await character_named(self._castmate, source, key.name):
                await admit()
                return await self._saved(saved, key)
            if could_be_name(source):
                characters = await self._castmate.characters.list(key.name)
                raise no_such_name(characters, source, ALLOWED)
            raise ImageRejected(
                f"{shorten(source, 60)!r} is no address",
                allowed=ALLOWED,
                hint="Upload the file first.",
            )
        name = self._own_name(source, base_url)
        if name is not None and (known := self._checked.get(name)) is not None:
            return known
        await admit()
        if name is not None:
            return await self._read(name, key)

        return await resolve(
            source,
            roots=(),
            allow_http=self._settings.allow_http,
            fetch=self.fetching(key, FETCH_S),
            caller=key.name,
        )

    def fetching(self, key: Key, deadline_s: float = DEADLINE_S) -> Fetch:
        """What downloads pictures for a key, within its share of all downloads.

        Args:
            key: Whose calls they are.
            deadline_s: Of each.
        """

        async def get(url: str) -> bytes:
            with self._fetches().hold_for(key):
                return await fetch(
                    url,
                    max_bytes=MAX_BYTES,
                    allow_http=self._settings.allow_http,
                    use_proxy=self._settings.fetch_proxy,
                    deadline_s=deadline_s,
                )

        return get

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

    async def _saved(self, saved: ImageName | CharacterName, key: Key) -> Reference:
        try:
            names = await stored_names(self._castmate, saved, key.name)
        except FileNotFoundError as error:
            raise ImageRejected(
                f"there is no picture or character {str(error)!r}",
                allowed=ALLOWED,
                hint="GET /api/v3/characters lists the characters.",
            ) from None
        return together(
            [
                self._checked.get(name) or await self._read(name, key)
                for name in names[:MAX_TOGETHER]
            ]
        )

    async def _read(self, name: str, key: Key) -> Reference:
        try:
            data = await self._storage.get(name)
        except FileNotFoundError:
            raise ImageRejected(
                f"{name} is no longer in the storage", hint="Upload the picture again."
            ) from None
        reference = await Reference.read(data, name, key.name)
        with contextlib.suppress(ValueError):  # larger than all that is remembered
            self._checked[name] = reference
        return reference


def _size(reference: Reference) -> int:
    width, height = reference.image.size
    return len(reference.data) + 3 * width * height
