"""A client that opens while the server already answers: hosts do not wait for a model to load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from castmate.clients.base import Client, Encoder, ProgressCallback
from castmate.clients.payments import Payments
from castmate.images import Reference
from castmate.router import ClientStatus, Router
from castmate.schema import GenerateRequest, GenerateResult


class OpeningClient:
    """Opens a client in a thread, from its construction on; a failure reaches the next caller.

    A later call tries again: the user may have repaired the installation meanwhile.
    """

    def __init__(self, opener: Callable[[], Client]) -> None:
        """Start opening; needs a running event loop.

        Args:
            opener: Gives the client, slowly, or raises.
        """
        self._opener = opener
        self._opening = self._start()

    @property
    def name(self) -> str:
        """The name of the client, once it is open."""
        return self._opening.result().name if self._is_open() else "opening"

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
        payments: Payments | None = None,
    ) -> GenerateResult:
        """Wait until the client is open, then generate with it.

        Raises:
            BundleError: It cannot be opened.
        """
        if self._opening.done() and not self._is_open():
            self._opening = self._start()
        client = await asyncio.shield(self._opening)  # a cancelled call does not stop the opening
        return await client.generate(request, reference, on_progress, payments)

    async def encode(self, reference: Reference) -> None:
        """Let the client encode a character, if it keeps them; wait until it is open."""
        client = await asyncio.shield(self._opening)
        if isinstance(client, Encoder):
            await client.encode(reference)

    def status(self) -> tuple[ClientStatus, ...]:
        """How each client does; one that is still loading is no reason to ask another."""
        if not self._opening.done():
            return (ClientStatus("opening", True, None),)
        if not self._is_open():
            return (ClientStatus("none", False, None, str(self._opening.exception())),)
        client = self._opening.result()
        if isinstance(client, Router):
            return client.status()
        return (ClientStatus(client.name, True, None),)

    async def aclose(self) -> None:
        """Close the client; wait for it first where it is still opening."""
        await asyncio.wait([self._opening])
        if self._is_open():
            await self._opening.result().aclose()

    def _start(self) -> asyncio.Task[Client]:
        return asyncio.create_task(asyncio.to_thread(self._opener))

    def _is_open(self) -> bool:
        opening = self._opening
        return opening.done() and not opening.cancelled() and opening.exception() is None
