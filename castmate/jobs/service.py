"""All of it from the settings: what a door opens to submit predictions, and to make them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final, Self

from sqlalchemy import URL

from castmate.clients.base import Client, ProgressCallback
from castmate.errors import CastmateError, from_dict
from castmate.images import Reference
from castmate.jobs.budget import Budget, Caps
from castmate.jobs.database import Durability
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from castmate.jobs.predictions import Prediction
from castmate.jobs.queue import Limits
from castmate.jobs.retention import sweep
from castmate.jobs.storage import DAY_S, Storage
from castmate.jobs.worker import Worker
from castmate.schema import GeneratedImage, GenerateRequest, GenerateResult
from castmate.settings import Settings

_log = logging.getLogger(__name__)

_SWEEP_S: Final = 3600.0
_STOP_S: Final = 5.0  # for what is cancelled to end by itself


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
        self.tidy()

    def tidy(self) -> None:
        """Remove what is old in the background, now and every hour."""
        if self._keep_s:
            self._sweeping = asyncio.create_task(self._sweep())

    async def generate(
        self,
        client: Client,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
    ) -> GenerateResult:
        """Make one prediction in this process at once, for a caller who waits for it.

        It is durable and paid for like any other: where this process dies or falls silent, another
        one that works makes it. Cancelling the task cancels the prediction.

        Raises:
            CastmateError: Why there is no picture: what the client raised, or what befell it.
        """
        worker = Worker(self.ledger, client, budget=self.budget, own_only=True)
        worker.start()
        try:
            prediction = await worker.submit(request, reference)
            try:
                ended = await self.ledger.wait(prediction.id, on_progress=on_progress)
            except asyncio.CancelledError:
                await self.ledger.cancel(prediction.id)
                raise
        finally:
            await worker.drain(_STOP_S)
        if ended.error is not None:
            raise from_dict(ended.error)
        return await self._read(ended)

    async def _read(self, prediction: Prediction) -> GenerateResult:
        """The pictures of a completed prediction, out of the storage."""
        stored = prediction.result
        assert stored is not None
        images = [
            GeneratedImage(
                await self.storage.get(image.name),
                image.output_format,
                image.width,
                image.height,
                image.seed,
                image.has_nsfw,
            )
            for image in stored.images
        ]
        return GenerateResult(
            tuple(images),
            stored.client,
            stored.model,
            stored.timings_ms,
            stored.warnings,
            stored.cost_usd,
            stored.computed_steps,
        )

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
    path = settings.data_dir.absolute() / "ledger.sqlite3"
    return URL.create("sqlite", database=str(path)).render_as_string()


def caps(settings: Settings) -> Caps:
    """What may be spent."""
    return Caps(settings.max_usd_per_prediction, settings.max_usd_per_day, settings.max_usd_per_key)
