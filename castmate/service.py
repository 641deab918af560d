"""The composition root: everything a process needs for predictions, opened from the settings.

Every door gets a `Castmate` and uses its parts; nothing else assembles them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, Self

from typing_extensions import TypeVar

from castmate.clients.base import ProgressCallback
from castmate.errors import CastmateError, SettingsError, Unavailable, from_dict
from castmate.images import Reference
from castmate.jobs.budget import Budget, Caps
from castmate.jobs.characters import Characters
from castmate.jobs.claims import Claim
from castmate.jobs.consents import Consents
from castmate.jobs.database import Database, Durability
from castmate.jobs.gallery import Gallery
from castmate.jobs.keys import KeyRing
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import database_url, open_database
from castmate.jobs.outputs import Outputs
from castmate.jobs.queue import Limits
from castmate.jobs.retention import sweep
from castmate.jobs.scenes import Storyboard
from castmate.jobs.storage import DAY_S, Storage
from castmate.jobs.storyboards import Storyboards
from castmate.jobs.webhooks import Webhooks
from castmate.jobs.worker import Worker
from castmate.router import Router
from castmate.schema import GenerateRequest, GenerateResult
from castmate.settings import Settings
from castmate.storyboard import Series

_log = logging.getLogger(__name__)

AnySettings = TypeVar("AnySettings", bound=Settings, default=Settings)
"""A server's settings extend the library's."""
Ended = TypeVar("Ended")

_HOUR_S: Final = 3600.0
_STOP_S: Final = 5.0  # for cancelled work to end by itself


class Castmate(Generic[AnySettings]):
    """What one process uses to submit, draw and read predictions.

    Attributes:
        settings: How Castmate runs on this machine.
        router: The clients that draw. They are opened when first needed, or by `work`.
        storage: Holds the pictures.
        ledger: Every prediction.
        budget: Past payments and the caps on further ones.
        storyboards: Every series of pictures.
        outputs: Finished pictures, which their owners can rename and delete.
        gallery: Searches finished pictures.
        characters: Saved characters.
        consents: Who has agreed to pay today.
        keys: Who may call.
        webhooks: Whom to notify when a prediction ends.
    """

    def __init__(
        self,
        settings: AnySettings,
        database: Database,
        storage: Storage,
        router: Router,
        keep_days: float | None = None,
    ) -> None:
        """Assemble parts that `open` has opened."""
        self.settings, self.router, self.storage = settings, router, storage
        quota_mb = settings.stored_mb_per_key
        limits = Limits(
            settings.queue_limit,
            settings.lease_s,
            wait_s=settings.wait_s,
            stored_bytes_per_key=quota_mb and quota_mb * 2**20,
        )
        days = keep_days if settings.retention_days is None else settings.retention_days
        self.ledger = Ledger(database, storage, limits, keep_s=days * DAY_S if days else None)
        self.budget = Budget(
            database,
            Caps(
                settings.max_usd_per_prediction, settings.max_usd_per_day, settings.max_usd_per_key
            ),
        )
        self.storyboards = Storyboards(self.ledger)
        self.outputs = Outputs(self.ledger)
        self.gallery = Gallery(database)
        self.characters = Characters(database, self.ledger.pictures)
        self.consents = Consents(database)
        self.keys = KeyRing(database)
        self.webhooks = Webhooks(database)
        self._database = database
        self._worker: Worker | None = None
        self._background: set[asyncio.Task[None]] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        settings: AnySettings,
        *,
        router: Router | None = None,
        drain_s: float = 0.0,
        keep_days: float | None = None,
    ) -> AsyncIterator[Self]:
        """Open the ledger and its storage, and close everything in order at the end.

        No model is loaded and nothing is drawn before `work` or `generate`.

        Args:
            settings: How Castmate runs on this machine.
            router: The clients that draw; by default those of the settings.
            drain_s: How long running predictions may take to finish at the end. The others go back
                to the queue, and are drawn at the next start.
            keep_days: How long predictions submitted here are kept, unless the settings say; None
                keeps them indefinitely.

        Raises:
            SettingsError: The settings of the database, the storage or the clients are wrong.
            Unavailable: The database cannot be reached.
        """
        durability = Durability(settings.durability)
        secret = settings.files_secret.get_secret_value() if settings.files_secret else None
        storage = Storage.open(
            settings.storage_url, settings.data_dir, secret=secret, durability=durability
        )
        router = router or Router.of(settings)
        database = await open_database(
            database_url(settings), durability, pooled=settings.database_pooler
        )
        castmate = cls(settings, database, storage, router, keep_days)
        try:
            yield castmate
        finally:
            await castmate._close(drain_s)

    def work(self) -> None:
        """Draw predictions in this process, and remove old ones.

        The clients open in the background, so callers get answers while a model loads.
        """
        self._begin(self._open_clients())
        if slots := self.settings.worker_slots:
            self._worker = self._new_worker(slots=slots)
            self._worker.start()
        self._begin_sweeping()
        self._begin(self._hourly(self.gallery.let_all_be_found))

    def finish(self) -> None:
        """Start nothing more in this process; running predictions go on."""
        if self._worker is not None:
            self._worker.finish()

    @property
    def worker(self) -> Worker | None:
        """The worker that draws here; None before `work`, or if CASTMATE_WORKER_SLOTS is 0."""
        return self._worker

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
    ) -> GenerateResult:
        """Draw one prediction in this process at once, for a caller who waits for it.

        It is as durable and paid for as any other: if this process dies or falls silent, another
        worker draws it. Cancelling the task cancels the prediction.

        Raises:
            CastmateError: Why there is no picture: the client's error, or what ended the attempt.
        """
        await self.router.open()
        self._begin_sweeping()
        drawn: dict[int, GenerateResult] = {}  # by attempt

        def keep(claim: Claim, result: GenerateResult) -> None:
            drawn[claim.attempt] = result

        worker = self._new_worker(own=(), on_drawn=keep)
        worker.start()
        try:
            prediction = await worker.submit(request, reference)
            try:
                ended = await _unless_lost(
                    self.ledger.wait(prediction.id, on_progress=on_progress), worker.lost
                )
            except asyncio.CancelledError:
                with contextlib.suppress(Unavailable):  # then its lease expires
                    await self.ledger.cancel(prediction.id)
                raise
        finally:
            await worker.drain(_STOP_S)
        if ended.error is not None:
            raise from_dict(ended.error)
        if (result := drawn.get(ended.attempt)) is not None:
            return result
        assert ended.result is not None
        return await ended.result.load(self.storage.get)  # another process drew it

    async def draw_storyboard(
        self, request: Series, reference: Reference, on_progress: ProgressCallback | None = None
    ) -> Storyboard:
        """Draw a series in this process, for a caller who waits for it.

        Submitting the same series again resumes it, however this call ended: it draws what is
        missing. Cancelling the task cancels the scenes that are not drawn yet.

        Raises:
            CastmateError: The series was not accepted. A failed scene's error is in its prediction.
        """
        await self.router.open()
        self._begin_sweeping()
        taken = await self.storyboards.submit(request, reference)
        ids = [scene.prediction.id for scene in taken.scenes]
        worker = self._new_worker(own=ids)
        worker.start()
        try:
            return await _unless_lost(
                self.storyboards.wait(taken.id, on_progress=on_progress), worker.lost
            )
        except asyncio.CancelledError:
            with contextlib.suppress(Unavailable):  # then the leases expire
                await self.storyboards.cancel(taken.id)
            raise
        finally:
            await worker.drain(_STOP_S)

    def _new_worker(self, **options: Any) -> Worker:
        describe = self.settings.picture_metadata
        return Worker(self.ledger, self.router, budget=self.budget, describe=describe, **options)

    async def _close(self, drain_s: float) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._worker is not None:
            await self._worker.drain(drain_s)
        await self._database.aclose()
        await self.router.aclose()

    async def _open_clients(self) -> None:
        with contextlib.suppress(SettingsError):  # `Router.status` says what is missing
            await self.router.open()

    def _begin_sweeping(self) -> None:
        days = self.settings.retention_days
        if days != 0:
            keep_s = None if days is None else days * DAY_S
            self._begin(self._hourly(lambda: sweep(self.ledger, keep_s)))

    async def _hourly(self, work: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await work()
            except CastmateError as error:
                _log.warning("what is done every hour was not: %s", error)
            await asyncio.sleep(_HOUR_S)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _unless_lost(ended: Coroutine[Any, Any, Ended], lost: asyncio.Future[None]) -> Ended:
    """The ended prediction, or the reason why its end cannot be recorded."""
    waiting = asyncio.create_task(ended)
    try:
        await asyncio.wait((waiting, lost), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            lost.result()
        return await waiting
    finally:
        waiting.cancel()
