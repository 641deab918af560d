"""The context of every tool and resource: who calls, what they own, and where it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import Context
from starlette.requests import HTTPConnection

from castmate.errors import InvalidRequest, Problem
from castmate.jobs.keys import LOCAL, Key
from castmate.jobs.predictions import Prediction, StoredImage
from castmate.jobs.scenes import Storyboard
from castmate.jobs.storage import SIGNED_FOR_S
from castmate.references import Fetch
from castmate.service import Castmate
from castmate.shorten import shorten
from castmate_mcp.agent.notices import Notices
from castmate_mcp.http.envelope import without_paths
from castmate_mcp.http.gateway import gateway
from castmate_mcp.http.ids import ImageName, prediction_id_of
from castmate_mcp.http.oauth import KeyToken
from castmate_mcp.http.saved import picture_of
from castmate_mcp.settings import ServerSettings

BaseUrl = Callable[[HTTPConnection], str]
GENERATE: Final = "generate_character_image"
DRAW_SCENES: Final = "draw_scenes"
_HOUR_S: Final = 3600.0


def calling_key() -> Key:
    """The key of the request that is being answered; `LOCAL` over stdio."""
    token = get_access_token()
    return token.key if isinstance(token, KeyToken) else LOCAL


@dataclass(frozen=True)
class Studio:
    """One MCP server.

    Attributes:
        castmate: The library's part of the server.
        base_url: This server's address as the caller of a request sees it; None without HTTP.
    """

    castmate: Castmate[ServerSettings]
    base_url: BaseUrl | None = None
    _background: set[asyncio.Task[None]] = field(default_factory=set, repr=False)

    @cached_property
    def notices(self) -> Notices:
        """Notifies of the ends of jobs."""
        return Notices()

    @property
    def key(self) -> Key:
        """The calling key."""
        return calling_key()

    @property
    def caller(self) -> str:
        """The name of the calling key, under which everything is looked up."""
        return self.key.name

    @property
    def reads_paths(self) -> bool:
        """Whether the caller sees the same disk as this process."""
        return self.key is LOCAL

    async def job(self, job_id: str) -> Prediction | Storyboard:
        """The caller's prediction or series of this id.

        Raises:
            InvalidRequest: It is not a job's id.
            PredictionNotFound: The caller has no such job.
        """
        prediction_id = prediction_id_of(job_id)
        if prediction_id is None:
            hint = "That is a picture's id: view_image shows it." if ImageName.parse(job_id) else ""
            raise InvalidRequest(
                [
                    Problem(
                        "job_id",
                        f"{shorten(job_id, 60)!r} is no id of a job",
                        f"the job_id that {GENERATE} returned, or one of list_library "
                        "with kind=jobs",
                        hint,
                    )
                ]
            )
        if series := await self.castmate.storyboards.find(prediction_id, self.caller):
            return series
        return await self.castmate.ledger.get(prediction_id, self.caller)

    async def cancel(self, name: str) -> None:
        """Stop the caller's prediction or series."""
        if await self.castmate.storyboards.find(name, self.caller):
            await self.castmate.storyboards.cancel(name, self.caller)
        else:
            await self.castmate.ledger.cancel(name, self.caller)

    async def picture(self, name: ImageName) -> StoredImage:
        """The caller's finished picture.

        Raises:
            FileNotFoundError: The caller has no such picture.
        """
        return await picture_of(self.castmate, name, self.caller)

    def shown(self, text: str) -> str:
        """An error or status without this machine's folders, if the agent is elsewhere."""
        return text if self.base_url is None else without_paths(text)

    def file_path(self, image: StoredImage) -> str | None:
        """The file of a picture, if the caller can open it."""
        path = self.castmate.storage.local_path(image.name) if self.reads_paths else None
        return None if path is None else str(path.absolute())

    def stored_name(self, path: Path) -> str | None:
        """The storage's name of the file at a path, if it is in the storage."""
        folder = self.castmate.storage.local_path("")
        if folder is None or not path.is_absolute():
            return None
        found = path.resolve()
        root = folder.resolve()
        return found.relative_to(root).as_posix() if found.is_relative_to(root) else None

    def download_url(self, image: StoredImage, ctx: Context[Any, Any]) -> str | None:
        """A URL of a picture that works without a key for a day, over HTTP.

        It stays the same for an hour, so that repeated requests hit caches.
        """
        request = ctx.request_context.request
        if self.base_url is None or not isinstance(request, HTTPConnection):
            return None
        hour = time.time() // _HOUR_S * _HOUR_S
        link = self.castmate.storage.link(image.name, hour, SIGNED_FOR_S + _HOUR_S)
        return self.base_url(request) + link

    def fetching(self, ctx: Context[Any, Any]) -> Fetch | None:
        """Downloads pictures for a call, over HTTP within its key's share."""
        request = ctx.request_context.request
        if not isinstance(request, HTTPConnection):
            return None
        return gateway(request).references.fetching(self.key)

    def count(self, ctx: Context[Any, Any], number: int = 1) -> None:
        """Count predictions that a call has submitted, if there is `/metrics` to show them."""
        request = ctx.request_context.request
        if isinstance(request, HTTPConnection):
            gateway(request).metrics.submitted.labels("mcp").inc(number)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start background work; it ends with the process at the latest."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
