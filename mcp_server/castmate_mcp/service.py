"""What every door of the server stands on: the ledger, and what draws, opened and closed once."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from castmate.clients.base import Client
from castmate.clients.registry import named
from castmate.jobs.service import Jobs
from castmate.router import ClientStatus, open_clients
from castmate.settings import Settings
from castmate_mcp.opening import OpeningClient


@dataclass(frozen=True)
class Service:
    """One process's part in making predictions; doors submit, look, wait and cancel through it.

    Attributes:
        settings: How this machine runs.
        jobs: The ledger, its storage and its budget.
        client: What draws; it may still be loading.
    """

    settings: Settings
    jobs: Jobs
    client: OpeningClient

    def status(self) -> tuple[ClientStatus, ...]:
        """How each client does, in the order in which they are asked."""
        return self.client.status()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        *,
        drain_s: float = 0.0,
        opener: Callable[[], Client] | None = None,
    ) -> AsyncIterator[Service]:
        """Open all of it and begin to work; give running predictions `drain_s` at the end.

        Args:
            settings: How this machine runs.
            drain_s: Seconds; what is not finished then is put back and goes on at the next start.
            opener: Gives what draws; by default the router of all clients that are set up.

        Raises:
            SettingsError: The database or the storage cannot be used, or a client does not exist.
            Unavailable: The database cannot be reached.
        """
        named(settings)  # a wrong name ends the start: what opens clients does so in the background
        jobs = await Jobs.open(settings)
        client = OpeningClient(opener or functools.partial(open_clients, settings))
        try:
            jobs.work(client)
            yield cls(settings, jobs, client)
        finally:
            await jobs.aclose(drain_s)
            await client.aclose()
