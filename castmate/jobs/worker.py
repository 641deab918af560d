"""Turns predictions into pictures: claims, runs a client, stores, finishes; one lease for all."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from castmate import several, tracing
from castmate.clients.base import Client, Progress, Resting
from castmate.errors import Cancelled, CastmateError, Unavailable
from castmate.images import Reference
from castmate.jobs import notify
from castmate.jobs.budget import Budget
from castmate.jobs.claims import Claim, Claims
from castmate.jobs.ledger import Ledger
from castmate.jobs.predictions import Outcome, Prediction, StoredResult
from castmate.jobs.progress import Writer
from castmate.jobs.storage import output_name
from castmate.picture_metadata import described
from castmate.schema import GenerateRequest, GenerateResult

_log = logging.getLogger(__name__)

_BEATS_PER_LEASE: Final = 3
_AFTER_LEASE_S: Final = 0.1
_RETRY_S: Final = 0.5  # when the ledger or the storage cannot be reached
_LONGEST_RETRY_S: Final = 2.0
_LONGEST_REST_S: Final = 2.0  # between two claims while no client can draw
_IMPATIENT_S: Final = 10.0  # for a caller who waits for the ledger and the storage in person

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
        own: Sequence[str] | None = None,
        on_drawn: Callable[[Claim, GenerateResult], object] | None = None,
        describe: bool = False,
    ) -> None:
        """Nothing is claimed until `start`.

        Args:
            ledger: Where predictions are.
            client: What draws.
            budget: Its caps; by default there are none.
            slots: How many predictions it makes at a time, besides those submitted through it.
            owner: Its name, which no other worker has; by default one is drawn.
            own: Leave to others what is not among these predictions, nor was submitted through it,
                and give up soon: somebody waits for them in person. None takes everything.
            on_drawn: Gets each result once its pictures are stored.
            describe: Write into the pictures how they were drawn.
        """
        self._ledger, self._client, self._slots = ledger, client, slots
        self._claims = Claims(ledger.database, ledger.limits)
        self._progress = Writer(self._claims, ledger.storage)
        self._budget = budget or Budget(ledger.database)
        self.owner = owner or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._own: tuple[str, ...] | None = None if own is None else tuple(own)
        # Whoever waits in person gets one sentence in the end.
        self._level = logging.WARNING if own is None else logging.INFO
        self._wait_s = ledger.limits.wait_s if own is None else 0.0
        self._failures, self._rests_until = 0, 0.0  # claims that no client could draw, in a row
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails as soon as a prediction could not be ended in time; never done otherwise."""
        self._on_drawn, self._describe = on_drawn, describe
        self.attempts: Counter[tuple[Outcome, str]] = Counter()
        """Those that have ended here, by outcome and by the client that drew the pictures."""
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._unwanted: set[str] = set()  # ids whose work someone cancelled or took over
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._free = asyncio.Event()

    @property
    def slots(self) -> int:
        """How many predictions it makes at a time."""
        return self._slots

    @property
    def running(self) -> int:
        """How many it makes now."""
        return len(self._running)

    def start(self) -> None:
        """Begin to claim."""
        loops = (self._claim(), self._beat(), self._progress.run())
        self._loops = [asyncio.create_task(loop) for loop in loops]

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

    def finish(self) -> None:
        """Claim no more; what runs goes on."""
        self._stopping.set()
        self._free.set()

    async def drain(self, timeout_s: float = 0.0) -> None:
        """Claim no more, give what runs `timeout_s` to end, and put the rest back."""
        self.finish()
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
                room, rest_s = self._room()
                if room > 0:
                    claim_some = functools.partial(self._claims.claim, self.owner, room, self._own)
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
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(None if math.isinf(rest_s) else rest_s):
                            await self._free.wait()

    def _room(self) -> tuple[int, float]:
        """How many predictions to claim, and where that is none, seconds until it may be more.

        While no client can draw, one is tried at a time, less and less often.
        """
        if (free := self._slots - len(self._running)) <= 0:
            return 0, math.inf
        rest_s = max(0.0, self._rests_until - time.monotonic())
        if isinstance(self._client, Resting):
            rest_s = max(rest_s, self._client.ready_in_s)
        if rest_s > 0:
            return 0, rest_s
        if self._failures:
            return (0, math.inf) if self._running else (1, 0.0)
        return free, 0.0

    def _begin(self, claim: Claim) -> None:
        task = asyncio.create_task(self._work(claim))
        self._running[task] = claim
        task.add_done_callback(self._ended)

    async def _beat(self) -> None:
        """Keep our leases, end what we lost or what nobody wants, and take over from the dead."""
        beat_s = self._ledger.limits.lease_s / _BEATS_PER_LEASE
        while True:
            pause_s = beat_s
            try:
                await self._keep_alive()
                if await self._claims.recover():
                    _log.warning("took over the work of a process that had fallen silent")
                # What a dead process held is taken over as its lease ends, not a beat later.
                ends_in_s = await self._claims.first_end_in_s()
                pause_s = min(beat_s, max(ends_in_s, 0.0) + _AFTER_LEASE_S)
            except Unavailable as error:
                _log.warning("no heartbeat: %s", error)  # the fence holds without it
                pause_s = min(beat_s, _LONGEST_RETRY_S)  # leases may end meanwhile
            except Exception:
                _log.exception("no heartbeat")
            await asyncio.sleep(pause_s)
            self._free.set()  # what waited for a client elsewhere may be due

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
                elif error.passes:
                    self.attempts[Outcome.DEFERRED, ""] += 1
                    await self._defer(claim, error)
                else:
                    self.attempts[Outcome.FAILED, ""] += 1
                    await self._until_reached(functools.partial(self._claims.fail, claim, error))
            except Exception as error:
                _log.exception("a bug in the client, at prediction %s", claim.id)
                self.attempts[Outcome.FAILED, ""] += 1
                bug = CastmateError(f"A bug in Castmate: {type(error).__name__}. The log has more.")
                await self._until_reached(lambda: self._claims.fail(claim, bug))
            else:
                self.attempts[Outcome.COMPLETED, result.client] += 1
                if not await self._until_reached(lambda: self._claims.complete(claim, result)):
                    _log.warning("attempt %d of %s came too late", claim.attempt, claim.id)
            finally:
                self._progress.ended(claim)
                watching.cancel()
                self._unwanted.discard(claim.id)

    async def _make(self, claim: Claim) -> StoredResult:
        """Draw and store the pictures of a claim, in the trace of whoever submitted it."""
        with tracing.span("attempt", claim.prediction.traceparent) as span:
            span.set_attribute("castmate.prediction", claim.id)
            span.set_attribute("castmate.attempt", claim.attempt)
            return await self._drawn(claim)

    async def _drawn(self, claim: Claim) -> StoredResult:
        prediction, storage = claim.prediction, self._ledger.storage
        try:
            data = await storage.get(prediction.input)
        except FileNotFoundError:
            raise CastmateError(
                "The reference picture is no longer in the storage; submit it again."
            ) from None
        reference = await several.read(data, "the reference")

        def on_progress(progress: Progress) -> None:
            if progress.step > 0:
                self._works()
            self._ledger.database.hub.progress(claim.id, progress)
            self._progress.moved(claim, progress)

        payments = self._budget.payments(claim)
        with self._ledger.database.hub.making(claim.id):
            result = await self._client.generate(
                prediction.request, reference, on_progress, payments
            )
        self._works()
        if self._describe:
            result = await asyncio.to_thread(described, prediction.request, result)
        names = []
        with tracing.span("store"):
            for number, image in enumerate(result.images):
                name = output_name(claim.id, claim.attempt, number, image.output_format)
                await self._keep(name, image.data, result.cost_usd)
                names.append(name)
        if self._on_drawn is not None:
            self._on_drawn(claim, result)
        return StoredResult.of(result, names, [one.sha256 for one in reference.several])

    async def _keep(self, name: str, data: bytes, cost_usd: float) -> None:
        """Store a finished picture, however often it takes: it was drawn, and perhaps paid.

        Meanwhile the lease is kept alive, and the picture is in memory.

        Raises:
            Unavailable: It could not be stored for as long as a prediction may wait.
        """
        began, pause_s, patience_s = time.monotonic(), _RETRY_S, max(self._wait_s, _IMPATIENT_S)
        while True:
            try:
                return await self._ledger.storage.put(name, data)
            except Unavailable as error:
                waited_s = time.monotonic() - began
                if waited_s + pause_s > patience_s:
                    paid = f" and ${cost_usd:.2f} was paid for it" if cost_usd else ""
                    error.args = (
                        f"The picture was drawn{paid}, but it could not be stored for "
                        f"{waited_s:.0f} s. {error}",
                    )
                    error.passes = False
                    raise
                _log.log(self._level, "A finished picture is kept in memory: %s", error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_RETRY_S)

    def _works(self) -> None:
        """Someone draws: claim as before."""
        if self._failures:
            self._failures, self._rests_until = 0, 0.0
            self._free.set()

    async def _defer(self, claim: Claim, error: CastmateError) -> None:
        """Let a prediction wait for a client, and claim less until one has drawn again."""
        self._failures += 1
        rest_s = min(_RETRY_S * 2 ** (min(self._failures, 10) - 1), _LONGEST_REST_S)
        self._rests_until = time.monotonic() + rest_s
        pause_s = await self._until_reached(lambda: self._claims.defer(claim, error, self._wait_s))
        if pause_s is None:
            return
        _log.warning("%s waits %.1f s for a client that can draw: %s", claim.id, pause_s, error)
        self._ledger.database.hub.progress(claim.id, Progress(0, 0, str(error)))
        asyncio.get_running_loop().call_later(pause_s, self._free.set)

    async def _watch(
        self, claim: Claim, unwanted: asyncio.Event, making: asyncio.Task[StoredResult]
    ) -> None:
        """Stop the work as soon as its cancellation is announced; the ledger has the last word."""
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
        cancelled = claim.id in self._unwanted
        self.attempts[Outcome.CANCELLED if cancelled else Outcome.RELEASED, ""] += 1
        with contextlib.suppress(Unavailable):  # then its lease ends by itself
            if cancelled:
                await self._claims.fail(claim, Cancelled("Cancelled while it was being made."))
            else:
                await self._claims.release(claim)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._free.set()
        if not task.cancelled() and (error := task.exception()):
            if self._own is not None and isinstance(error, Unavailable):
                if not self.lost.done():
                    self.lost.set_exception(error)
                    self.lost.exception()  # whoever asks gets it, and nobody has to
                return
            _log.error("a prediction could not be ended", exc_info=error)

    async def _until_reached(self, call: Callable[[], Awaitable[T]]) -> T:
        """Try until the ledger answers; whoever took over meanwhile is protected by the fence."""
        began = time.monotonic()
        while True:
            try:
                return await call()
            except Unavailable as error:
                if self._own is not None and time.monotonic() - began > _IMPATIENT_S:
                    raise
                _log.log(self._level, "%s", error)
                await asyncio.sleep(_RETRY_S)


async def _first(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
