"""All of it from the settings: what a door opens to submit predictions, and to make them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final, Self

from castmate.clients.base import Client
from castmate.errors import CastmateError
from castmate.jobs.budget import Budget, Caps
from castmate.jobs.database import Durability, open_database
from castmate.jobs.ledger import Ledger
from castmate.jobs.order import Limits
from castmate.jobs.retention import sweep
from castmate.jobs.storage import DAY_S, Storage
from castmate.jobs.worker import Worker
from castmate.settings import Settings

_log = logging.getLogger(__name__)

_SWEEP_S: Final = 3600.0


class Jobs:
    """A ledger, its storage and its budget, and a worker where this process draws."""

    def __init__(self, ledger: Ledger, budget: Budget, slots: int, keep_s: float) -> None:
        self.ledger, self.storage, self.budget = ledger, ledger.storage, budget
        self._slots, self._keep_s = slots, keep_s
        self._worker: Worker | None = None
        self._sweeping: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Open the ledger that the settings name; nothing is made until `work`.

        Raises:
            SettingsError: The database or the storage cannot be used.
            Unavailable: The database cannot be reached.
        """
        durability = Durability(settings.durability)
        secret = settings.files_secret.get_secret_value() if settings.files_secret else None
        storage = Storage.open(
            settings.storage_url, settings.data_dir, secret=secret, durability=durability
        )
        limits = Limits(settings.queue_limit, settings.lease_s, settings.priority_ageing_s)
        database = await open_database(database_url(settings), durability)
        return cls(
            Ledger(database, storage, limits),
            Budget(database, caps(settings)),
            settings.worker_slots,
            settings.retention_days * DAY_S,
        )

    def work(self, client: Client) -> None:
        """Make predictions in this process, and remove old ones."""
        if self._slots:
            self._worker = Worker(self.ledger, client, budget=self.budget, slots=self._slots)
            self._worker.start()
        if self._keep_s:
            self._sweeping = asyncio.create_task(self._sweep())

    async def aclose(self, timeout_s: float = 0.0) -> None:
        """Give what runs `timeout_s` to end, put the rest back, and close the ledger."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeping
        if self._worker is not None:
            await self._worker.drain(timeout_s)
        await self.ledger.database.aclose()

    async def _sweep(self) -> None:
        while True:
            try:
                await sweep(self.ledger, self._keep_s)
            except CastmateError as error:
                _log.warning("nothing was swept: %s", error)
            await asyncio.sleep(_SWEEP_S)


def database_url(settings: Settings) -> str:
    """Where the ledger is; by default in the data folder."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return f"sqlite:///{settings.data_dir.absolute() / 'ledger.sqlite3'}"


def caps(settings: Settings) -> Caps:
    """What may be spent."""
    return Caps(settings.max_usd_per_prediction, settings.max_usd_per_day, settings.max_usd_per_key)
