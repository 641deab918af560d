"""Notifies readers of a job's resource when the job ends, in both eras of the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.types import EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams

from castmate.errors import CastmateError
from castmate_mcp.agent.strict import StrictServer
from castmate_mcp.http.ids import job_id_of

_MOST: Final = 64  # jobs that one process watches at a time
_log = logging.getLogger(__name__)

Wait = Callable[[str], Awaitable[object]]


class Notices:
    """Sends one update of `job://...`, when the job is final."""

    def __init__(self) -> None:
        self._watched: dict[str, asyncio.Task[None]] = {}

    def watch(self, ctx: Context[Any, Any], name: str, wait: Wait) -> None:
        """Watch a job whose call has just returned without its picture.

        Args:
            ctx: The call.
            name: The job's id in the ledger.
            wait: Returns the job of an id once it is final.
        """
        if name in self._watched or len(self._watched) >= _MOST:
            return
        watching = asyncio.create_task(self._send(ctx, name, wait))
        self._watched[name] = watching
        watching.add_done_callback(lambda _: self._watched.pop(name))

    async def _send(self, ctx: Context[Any, Any], name: str, wait: Wait) -> None:
        uri = f"job://{job_id_of(name)}"
        try:
            await wait(name)
        except CastmateError as error:
            _log.info("nobody is notified about %s: %s", uri, error)
            return
        await ctx.notify_resource_updated(uri)
        with contextlib.suppress(Exception):  # the session may be over
            async with asyncio.timeout(5):
                await ctx.session.send_resource_updated(uri)


def add(server: StrictServer) -> None:
    """Let clients of the older era subscribe; each session is notified of all its jobs anyway."""

    async def subscribe(
        ctx: ServerRequestContext[Any, Any], params: SubscribeRequestParams
    ) -> EmptyResult:
        return EmptyResult()

    async def unsubscribe(
        ctx: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams
    ) -> EmptyResult:
        return EmptyResult()

    low = server._lowlevel_server
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)
