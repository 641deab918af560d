"""Turns predictions into pictures: claims, runs a client, stores, finishes; one lease for all."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from castmate.clients.base import Client, Progress
from castmate.errors import Cancelled, CastmateError, Unavailable
from castmate.images import Reference
from castmate.jobs import notify
from castmate.jobs.budget import Budget
from castmate.jobs.claims import Claim, Claims
from castmate.jobs.ledger import Ledger
from castmate.jobs.predictions import Prediction, StoredResult
from castmate.jobs.storage import output_name
from castmate.schema import GenerateRequest, GenerateResult

_log = logging.getLogger(__name__)

_BEATS_PER_LEASE: Final = 3
_RETRY_S: Final = 0.5  # when the ledger cannot be reached

T = TypeVar("T")


class Worker:
    """Works on as many predictions at a time as it has slots.

    It knows nothing of models and prices: `client` does, the router among them.
    """

    def __init__(
        self,
        ledger: Ledger,
        client: Client,
        *,
        budget: Budget | None = None,
        slots: int = 1,
        owner: str | None = None,
        own_only: bool = False,
        on_drawn: Callable[[Claim, GenerateResult], object] | None = None,
    ) -> None:
        """Nothing is claimed until `start`.

        Args:
            ledger: Where predictions are.
            client: What draws.
            budget: Its caps; by default there are none.
            slots: How many predictions it makes at a time, besides those submitted through it.
            owner: Its name, which no other worker has; by default one is drawn.
            own_only: Leave to others what was not submitted through it.
            on_drawn: Gets each result once its pictures are stored.
        """
        self._ledger, self._client, self._slots = ledger, client, slots
        self._claims = Claims(ledger.database, ledger.limits)
        self._budget = budget or Budget(ledger.database)
        self.owner = owner or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._own: tuple[str, ...] | None = () if own_only else None
        self._on_drawn = on_drawn
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._unwanted: set[str] = set()  # ids whose work someone cancelled or took over
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._free = asyncio.Event()

    def start(self) -> None:
        """Begin to claim."""
        self._loops = [asyncio.create_task(self._claim()), asyncio.create_task(self._beat())]

    async def submit(
        self, request: GenerateRequest, reference: Reference, *, key_name: str = "local"
    ) -> Prediction:
        """Submit a prediction and begin with it at once, whatever waits."""
        submitting = self._ledger.submit(request, reference, key_name=key_name, owner=self.owner)
        prediction = await submitting
        if self._own is not None:
            self._own += (prediction.id,)
        self._begin(Claim(prediction, self.owner))
        return prediction

    async def drain(self, timeout_s: float = 0.0) -> None:
        """Claim no more, give what runs `timeout_s` to end, and put the rest back."""
        self._stopping.set()
        self._free.set()
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def _claim(self) -> None:
        with self._ledger.database.hub.listening(notify.WORK) as work:
            while not self._stopping.is_set():
                work.clear()
                self._free.clear()
                if (free := self._slots - len(self._running)) > 0:
                    claim_some = functools.partial(self._claims.claim, self.owner, free, self._own)
                    try:
                        claims = await self._until_reached(claim_some)
                    except Exception:
                        _log.exception("nothing could be claimed")
                        await asyncio.sleep(_RETRY_S)
                        continue
                    for claim in claims:
                        self._begin(claim)
                    # A full answer may have left more behind, where a slot is free at once.
                    if claims:
                        continue
                    await _first(work.wait(), self._free.wait())
                else:
                    await self._free.wait()

    def _begin(self, claim: Claim) -> None:
        task = asyncio.create_task(self._work(claim))
        self._running[task] = claim
        task.add_done_callback(self._ended)

    async def _beat(self) -> None:
        """Keep our leases, end what we lost or what nobody wants, and take over from the dead."""
        while True:
            try:
                await self._keep_alive()
                if await self._claims.recover():
                    _log.warning("took over the work of a process that had fallen silent")
            except Unavailable as error:
                _log.warning("no heartbeat: %s", error)  # the fence holds without it
            except Exception:
                _log.exception("no heartbeat")
            await asyncio.sleep(self._ledger.limits.lease_s / _BEATS_PER_LEASE)

    async def _keep_alive(self) -> None:
        held = {claim.id: claim.attempt for claim in self._running.values()}
        if not held:
            return
        unwanted = await self._claims.keep_alive(self.owner, held)
        for task, claim in self._running.items():
            asked = held.get(claim.id) == claim.attempt and claim.id not in self._unwanted
            if asked and unwanted.get(claim.id, True):
                if claim.id not in unwanted:
                    _log.warning("lost the lease of %s, attempt %d", claim.id, claim.attempt)
                self._unwanted.add(claim.id)
                task.cancel()

    async def _work(self, claim: Claim) -> None:
        with self._ledger.database.hub.listening(notify.cancel(claim.id)) as unwanted:
            making = asyncio.create_task(self._make(claim))
            watching = asyncio.create_task(self._watch(claim, unwanted, making))
            try:
                result = await making
            except asyncio.CancelledError:
                making.cancel()
                await asyncio.gather(making, return_exceptions=True)
                await self._stopped(claim)
            except CastmateError as error:
                if isinstance(error, Cancelled) and self._stopping.is_set():
                    await self._stopped(claim)  # the client was closed: someone else can do it
                else:
                    await self._until_reached(functools.partial(self._claims.fail, claim, error))
            except Exception as error:
                _log.exception("a bug in the client, at prediction %s", claim.id)
                bug = CastmateError(f"A bug in Castmate: {type(error).__name__}. The log has more.")
                await self._until_reached(lambda: self._claims.fail(claim, bug))
            else:
                if not await self._until_reached(lambda: self._claims.complete(claim, result)):
                    _log.warning("attempt %d of %s came too late", claim.attempt, claim.id)
            finally:
                watching.cancel()
                self._unwanted.discard(claim.id)

    async def _make(self, claim: Claim) -> StoredResult:
        prediction, storage = claim.prediction, self._ledger.storage
        try:
            data = await storage.get(prediction.input)
        except FileNotFoundError:
            raise CastmateError(
                "The reference picture is no longer in the storage; submit it again."
            ) from None
        reference = await Reference.read(data, "the reference")

        def on_progress(progress: Progress) -> None:
            self._ledger.database.hub.progress(claim.id, progress)

        payments = self._budget.payments(claim)
        result = await self._client.generate(prediction.request, reference, on_progress, payments)
        names = []
        for number, image in enumerate(result.images):
            name = output_name(claim.id, claim.attempt, number, image.output_format)
            await storage.put(name, image.data)
            names.append(name)
        if self._on_drawn is not None:
            self._on_drawn(claim, result)
        return StoredResult.of(result, names)

    async def _watch(
        self, claim: Claim, unwanted: asyncio.Event, making: asyncio.Task[StoredResult]
    ) -> None:
        """Stop the work as soon as its cancellation is told; every word is checked."""
        while True:
            await unwanted.wait()
            unwanted.clear()
            with contextlib.suppress(CastmateError):
                if (await self._ledger.get(claim.id)).cancel_requested:
                    self._unwanted.add(claim.id)
                    making.cancel()
                    return

    async def _stopped(self, claim: Claim) -> None:
        """End a claim whose work was stopped; where its lease is lost, nothing happens."""
        with contextlib.suppress(Unavailable):  # then its lease ends by itself
            if claim.id in self._unwanted:
                await self._claims.fail(claim, Cancelled("Cancelled while it was being made."))
            else:
                await self._claims.release(claim)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._free.set()
        if not task.cancelled() and (error := task.exception()):
            _log.error("a prediction could not be ended", exc_info=error)

    async def _until_reached(self, call: Callable[[], Awaitable[T]]) -> T:
        """Try until the ledger answers; whoever took over meanwhile is protected by the fence."""
        while True:
            try:
                return await call()
            except Unavailable as error:
                _log.warning("%s", error)
                await asyncio.sleep(_RETRY_S)


async def _first(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
