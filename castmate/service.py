"""Where a process's parts are put together: opened from the settings, closed in order.

Doors and commands get a `Castmate` and reach its parts; nothing else opens them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Final, Self

from sqlalchemy import URL

from castmate.clients.base import ProgressCallback
from castmate.errors import CastmateError, from_dict
from castmate.images import Reference
from castmate.jobs.budget import Budget, Caps
from castmate.jobs.characters import Characters
from castmate.jobs.claims import Claim
from castmate.jobs.consents import Consents
from castmate.jobs.database import Database, Durability
from castmate.jobs.keys import KeyRing
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from castmate.jobs.predictions import Prediction
from castmate.jobs.queue import Limits
from castmate.jobs.retention import sweep
from castmate.jobs.storage import DAY_S, Storage
from castmate.jobs.webhooks import Webhooks
from castmate.jobs.worker import Worker
from castmate.router import Opener, Router, open_clients
from castmate.schema import GeneratedImage, GenerateRequest, GenerateResult
from castmate.settings import Settings

_log = logging.getLogger(__name__)

_SWEEP_S: Final = 3600.0
_STOP_S: Final = 5.0  # for what is cancelled to end by itself


class Castmate:
    """One process's part in making predictions.

    Attributes:
        settings: How this machine runs.
        storage: The pictures.
        ledger: Submits, looks at, waits for and cancels predictions.
        budget: What was paid, and what may be.
        characters: Saved characters.
        consents: Who agreed to pay.
        keys: Who may call.
        webhooks: Whom to notify that a prediction has ended.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        storage: Storage,
        openers: Mapping[str, Opener] | None = None,
    ) -> None:
        self.settings, self.storage = settings, storage
        limits = Limits(settings.queue_limit, settings.lease_s, settings.priority_ageing_s)
        self.ledger = Ledger(database, storage, limits)
        self.budget = Budget(database, caps(settings))
        self.characters = Characters(database, storage)
        self.consents = Consents(database)
        self.keys = KeyRing(database)
        self.webhooks = Webhooks(database)
        self._openers = openers
        self._worker: Worker | None = None
        self._sweeping: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        *,
        drain_s: float = 0.0,
        openers: Mapping[str, Opener] | None = None,
    ) -> AsyncIterator[Self]:
        """Open the ledger and the storage; nothing is drawn before `work` or `generate`.

        Args:
            settings: How this machine runs.
            drain_s: Seconds for running predictions to end in; the rest goes on at the next start.
            openers: What opens each client, by name; by default those that the settings name.

        Raises:
            SettingsError: The database or the storage cannot be used.
            Unavailable: The database cannot be reached.
        """
        durability = Durability(settings.durability)
        secret = settings.files_secret.get_secret_value() if settings.files_secret else None
        storage = Storage.open(
            settings.storage_url, settings.data_dir, secret=secret, durability=durability
        )
        database = await open_database(database_url(settings), durability)
        castmate = cls(settings, database, storage, openers)
        try:
            yield castmate
        finally:
            await castmate._aclose(drain_s)

    @cached_property
    def router(self) -> Router:
        """What draws; its clients are opened when they are needed.

        Raises:
            SettingsError: CASTMATE_CLIENTS is wrong.
        """
        return open_clients(self.settings, self._openers)

    def work(self) -> None:
        """Draw what is submitted, remove what is old, and begin to open the clients.

        Raises:
            SettingsError: CASTMATE_CLIENTS is wrong.
        """
        self.router.open()
        if self.settings.worker_slots:
            slots = self.settings.worker_slots
            self._worker = Worker(self.ledger, self.router, budget=self.budget, slots=slots)
            self._worker.start()
        self.tidy()

    def tidy(self) -> None:
        """Remove what is old in the background, now and every hour."""
        if self.settings.retention_days:
            self._sweeping = asyncio.create_task(self._sweep())

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
    ) -> GenerateResult:
        """Draw one prediction in this process at once, for a caller who waits for it.

        It is durable and paid for like any other: where this process dies or falls silent, another
        one that works draws it. Cancelling the task cancels the prediction.

        Raises:
            CastmateError: Why there is no picture: what the client raised, or what became of it.
        """
        self.router.require_client()
        drawn: dict[str, GenerateResult] = {}

        def keep(claim: Claim, result: GenerateResult) -> None:
            drawn[claim.id] = result

        worker = Worker(self.ledger, self.router, budget=self.budget, own_only=True, on_result=keep)
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
        return drawn.get(ended.id) or await self._read(ended)

    async def _read(self, prediction: Prediction) -> GenerateResult:
        """The pictures of a prediction that another process has drawn, out of the storage."""
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

    async def _aclose(self, drain_s: float) -> None:
        """Give what runs `drain_s` to end, put the rest back, and close everything."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeping
        if self._worker is not None:
            await self._worker.drain(drain_s)
        await self.ledger.database.aclose()
        if "router" in vars(self):
            await self.router.aclose()

    async def _sweep(self) -> None:
        while True:
            try:
                await sweep(self.ledger, self.settings.retention_days * DAY_S)
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
