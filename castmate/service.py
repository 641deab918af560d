"""The composition root: one process's part in making predictions, opened from the settings.

Every door gets a `Castmate` and works with what it holds; nothing else puts these parts together.
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
"""A server's door reads more of them than the library."""
Ended = TypeVar("Ended")

_HOUR_S: Final = 3600.0
_STOP_S: Final = 5.0  # for what is cancelled to end by itself


class Castmate(Generic[AnySettings]):
    """What one process holds while it takes, makes or looks at predictions.

    Attributes:
        settings: How this machine runs.
        router: The clients that draw. They are opened when they are first needed, or by `work`.
        storage: Where pictures are.
        ledger: Every prediction.
        budget: What was paid, and what may be.
        storyboards: Every series of pictures.
        outputs: Finished pictures, as their owners keep them.
        gallery: The same, as they are looked for.
        characters: Saved characters.
        consents: Who has agreed to pay today.
        keys: Who may call.
        webhooks: Who is told when a prediction ends.
    """

    def __init__(
        self,
        settings: AnySettings,
        database: Database,
        storage: Storage,
        router: Router,
        keep_days: float | None = None,
    ) -> None:
        """Put the parts together; `open` opens them first."""
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
            settings: How this machine runs.
            router: The clients that draw; by default those of the settings.
            drain_s: How long what is being drawn at the end may take to finish. The rest is put
                back, and is drawn at the next start.
            keep_days: How long what is submitted here is kept, if the settings do not say; None
                keeps it for ever.

        Raises:
            SettingsError: The database, the storage or the clients are not set as they must be.
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
        """Make predictions in this process, and remove old ones.

        The clients are opened in the background: callers are answered while a model loads.
        """
        self._begin(self._open_clients())
        if slots := self.settings.worker_slots:
            self._worker = Worker(self.ledger, self.router, budget=self.budget, slots=slots)
            self._worker.start()
        self._begin_sweeping()
        self._begin(self._hourly(self.gallery.let_all_be_found))

    @property
    def worker(self) -> Worker | None:
        """What draws here; None before `work`, and where CASTMATE_WORKER_SLOTS is 0."""
        return self._worker

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
    ) -> GenerateResult:
        """Make one prediction in this process at once, for a caller who waits for it.

        It is durable and paid for like any other: if this process dies or falls silent, another
        one that works makes it. Cancelling the task cancels the prediction.

        Raises:
            CastmateError: Why there is no picture: what the client raised, or what befell it.
        """
        await self.router.open()
        self._begin_sweeping()
        drawn: dict[int, GenerateResult] = {}  # by attempt

        def keep(claim: Claim, result: GenerateResult) -> None:
            drawn[claim.attempt] = result

        worker = Worker(self.ledger, self.router, budget=self.budget, own=(), on_drawn=keep)
        worker.start()
        try:
            prediction = await worker.submit(request, reference)
            try:
                ended = await _unless_lost(
                    self.ledger.wait(prediction.id, on_progress=on_progress), worker.lost
                )
            except asyncio.CancelledError:
                with contextlib.suppress(Unavailable):  # then its lease ends by itself
                    await self.ledger.cancel(prediction.id)
                raise
        finally:
            await worker.drain(_STOP_S)
        if ended.error is not None:
            raise from_dict(ended.error)
        if (result := drawn.get(ended.attempt)) is not None:
            return result
        assert ended.result is not None
        return await ended.result.load(self.storage.get)  # another process made it

    async def draw_storyboard(
        self, request: Series, reference: Reference, on_progress: ProgressCallback | None = None
    ) -> Storyboard:
        """Draw a series in this process, for a caller who waits for it.

        The same series again goes on where this ends, however that is: it draws what is missing.
        Cancelling the task cancels what is not drawn yet.

        Raises:
            CastmateError: The series could not be taken. What a scene lacks is in its prediction.
        """
        await self.router.open()
        self._begin_sweeping()
        taken = await self.storyboards.submit(request, reference)
        ids = [scene.prediction.id for scene in taken.scenes]
        worker = Worker(self.ledger, self.router, budget=self.budget, own=ids)
        worker.start()
        try:
            return await _unless_lost(
                self.storyboards.wait(taken.id, on_progress=on_progress), worker.lost
            )
        except asyncio.CancelledError:
            with contextlib.suppress(Unavailable):  # then the leases end by themselves
                await self.storyboards.cancel(taken.id)
            raise
        finally:
            await worker.drain(_STOP_S)

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
    """What has ended, or the reason why its end cannot be written down."""
    waiting = asyncio.create_task(ended)
    try:
        await asyncio.wait((waiting, lost), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            lost.result()
        return await waiting
    finally:
        waiting.cancel()
