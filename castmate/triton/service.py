"""The core of the Triton model: a short queue, one worker, a pulse; knows nothing of Triton."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final, Protocol

import numpy as np

from castmate import __version__, several
from castmate.errors import Cancelled, CastmateError, Overloaded, Unavailable
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GeneratedImage
from castmate.triton import wire
from castmate.triton.metrics import Metrics
from castmate.triton.siblings import Siblings

logger = logging.getLogger(__name__)

FIRST_GUESS_S: Final = 5.0  # of a request's duration, until one has finished


class Call(Protocol):
    """The other end of one request."""

    def is_cancelled(self) -> bool:
        """Whether the client has gone."""
        ...

    def send(self, outputs: wire.Outputs, *, final: bool = False) -> None:
        """Send a response; nothing may follow a final one."""
        ...

    def fail(self, error: CastmateError) -> None:
        """Send an error as the final response."""
        ...


class Service:
    """Draws pictures, one request at a time, first come, first served.

    Every `pulse_s`, waiting requests learn how many are ahead of them, and the running one that the
    server is alive, so clients need not guess whether a step is long or the server dead.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        metrics: Metrics,
        *,
        siblings: Siblings | None = None,
        max_waiting: int = 16,
        pulse_s: float = 1.0,
    ) -> None:
        """Start the two threads.

        Args:
            pipeline: Draws the pictures.
            metrics: Counts what the service does.
            siblings: The server's other instances, which a probe's answer covers as well.
            max_waiting: Requests that may wait; further ones fail with `Overloaded`.
            pulse_s: Time between two signs of life.
        """
        self._pipeline, self._metrics, self._siblings = pipeline, metrics, siblings
        self._max_waiting, self._pulse_s = max_waiting, pulse_s
        self._waiting: deque[_Ticket] = deque()
        self._running: _Ticket | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._typical_s = FIRST_GUESS_S
        self._num_done = 0
        self._threads = [
            threading.Thread(target=target, name=f"castmate-{target.__name__}", daemon=True)
            for target in (self._work, self._pulse)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Call, prompt: bytes, image: bytes, parameters: dict[str, Any]) -> None:
        """Accept a request; any outcome goes to `call`, and nothing is raised."""
        ticket = _Ticket(call)
        try:
            if parameters.pop(wire.PROBE, False):
                self._check_siblings()
                self._respond(ticket, wire.report(self.state()), final=True)
                return
            ticket.job = wire.decode_request(prompt, image, parameters)
            ahead = self._enter(ticket)
        except CastmateError as error:
            self._end(ticket, error)
        else:
            self._respond(ticket, wire.ahead(ahead))

    def state(self) -> dict[str, Any]:
        """The answer to a probe."""
        with self._changed:
            return {
                "model": self._pipeline.bundle.name,
                "engine": self._pipeline.bundle.manifest.engine,
                "defaults": self._pipeline.bundle.manifest.defaults.model_dump(),
                "styles": self._pipeline.bundle.manifest.style_names,
                "versions": {"castmate": __version__, "numpy": np.__version__},
                "waiting": len(self._waiting),
                "running": int(self._running is not None),
                "max_waiting": self._max_waiting,
                "done": self._num_done,
            }

    def close(self, timeout_s: float = 30.0) -> None:
        """Stop the running request before its next step, reject waiting ones, end the threads."""
        self._closing.set()
        with self._changed:
            refused = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for ticket in refused:
            self._end(ticket, Unavailable("The server is stopping."))
        for thread in self._threads:
            thread.join(timeout_s)
        if self._siblings is not None:
            self._siblings.leave()

    def _check_siblings(self) -> None:
        if self._siblings is not None and (silent := self._siblings.silent()):
            raise Unavailable(
                f"Of this server's instances, {', '.join(silent)} shows no sign of life. Restart "
                "the server; `castmate serve triton` does so itself."
            )

    def _enter(self, ticket: _Ticket) -> int:
        """Join the queue; returns how many requests are ahead."""
        with self._changed:
            if self._closing.is_set():
                raise Unavailable("The server is stopping.")
            gone = self._leave_cancelled() if self._load() > self._max_waiting else []
            ahead = self._load()
            if ahead <= self._max_waiting:
                self._waiting.append(ticket)
                self._changed.notify_all()
        for left in gone:
            self._end(left, Cancelled("Cancelled while it waited."))
        if ahead > self._max_waiting:
            raise Overloaded(
                f"The server is full: {ahead - 1} requests wait, it takes {self._max_waiting}.",
                retry_after_s=round(max(1.0, self._typical_s), 1),
            )
        self._count_load()
        return ahead

    def _load(self) -> int:
        return len(self._waiting) + (self._running is not None)

    def _leave_cancelled(self) -> list[_Ticket]:
        """Remove the requests whose clients have gone from the queue."""
        gone = [ticket for ticket in self._waiting if ticket.call.is_cancelled()]
        for ticket in gone:
            self._waiting.remove(ticket)
        return gone

    def _work(self) -> None:
        while self._serve_next():
            pass  # keep no ticket beyond its request: Triton does not exit while one is held

    def _serve_next(self) -> bool:
        """Draw the pictures of the next request; False at the end of the service."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            if self._closing.is_set():
                return False
            ticket = self._running = self._waiting.popleft()
        self._count_load()
        error: CastmateError | None = None
        try:
            self._make(ticket)
        except CastmateError as caught:
            error = caught
        except Exception as caught:
            logger.exception("the model failed")
            error = CastmateError(f"The model failed: {type(caught).__name__}: {caught}")
        # Free the slot first: a client may send its next request as soon as it has its answer.
        with self._changed:
            self._running = None
            self._num_done += 1
        self._count_load()
        self._end(ticket, error)
        return True

    def _make(self, ticket: _Ticket) -> None:
        job, started = ticket.job, time.perf_counter()
        assert job is not None
        if ticket.call.is_cancelled():
            raise Cancelled("Cancelled while it waited.")
        reference = several.from_bytes(job.image, "the image")
        steps = _StepClock(self._metrics.step)

        def on_step(done: int, total: int) -> None:
            if self._closing.is_set():
                raise Unavailable(f"The server is stopping; {done} of {total} steps were done.")
            if ticket.call.is_cancelled():
                raise Cancelled(f"Stopped after {done} of {total} steps.")
            steps.tick()
            ticket.send(wire.progress(done, total))

        def on_image(image: GeneratedImage) -> None:
            ticket.send(wire.picture(image))
            steps.pause()

        result = self._pipeline.generate(job.request, reference, on_step, on_image)
        queue_ms = round(1000 * (started - ticket.arrived), 3)
        timings_ms = {"queue": queue_ms, **result.timings_ms}
        timings_ms["total"] = round(1000 * (time.perf_counter() - ticket.arrived), 3)
        self._typical_s += 0.3 * (time.perf_counter() - started - self._typical_s)
        self._metrics.stages(timings_ms)
        self._metrics.caches(self._pipeline.cache_counts())
        ticket.report = wire.report(
            {
                "model": result.model,
                "timings_ms": timings_ms,
                "warnings": list(result.warnings),
                "computed_steps": result.computed_steps,
                "drawn_with": dict(result.drawn_with),
                "reference": asdict(result.reference) if result.reference else None,
                "no_identity": result.no_identity,
                "selection": asdict(result.selection) if result.selection else None,
                "model_hash": result.model_hash,
            }
        )

    def _pulse(self) -> None:
        while not self._closing.wait(self._pulse_s):
            if self._siblings is not None:
                self._siblings.beat()
            self._beat()

    def _beat(self) -> None:
        with self._changed:
            gone = self._leave_cancelled()
            present = ([self._running] if self._running else []) + list(self._waiting)
        for ticket in gone:
            self._end(ticket, Cancelled("Cancelled while it waited."))
        if gone:
            self._count_load()
        for number, ticket in enumerate(present):
            self._respond(ticket, wire.ahead(number))

    def _end(self, ticket: _Ticket, error: CastmateError | None) -> None:
        self._metrics.ended(error.code if error else "ok")
        if error is None:
            self._respond(ticket, ticket.report, final=True)
        else:
            with _no_harm():
                ticket.fail(error)

    def _respond(self, ticket: _Ticket, outputs: wire.Outputs, *, final: bool = False) -> None:
        with _no_harm():
            ticket.send(outputs, final=final)

    def _count_load(self) -> None:
        with self._changed:
            waiting, running = len(self._waiting), int(self._running is not None)
        self._metrics.load(waiting, running)


@contextmanager
def _no_harm() -> Iterator[None]:
    """Keep one broken connection from stopping the threads that serve the others."""
    try:
        yield
    except Exception:
        logger.exception("a response could not be sent")


class _Ticket:
    """A request and its call; two threads send, and nothing follows the final response."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.arrived = time.perf_counter()
        self.job: wire.Job | None = None
        self.report: wire.Outputs = {}
        self._lock = threading.Lock()
        self._ended = False

    def send(self, outputs: wire.Outputs, *, final: bool = False) -> None:
        with self._lock:
            if not self._ended:
                self._ended = final
                self.call.send(outputs, final=final)

    def fail(self, error: CastmateError) -> None:
        with self._lock:
            if not self._ended:
                self._ended = True
                self.call.fail(error)


class _StepClock:
    """Times each step from its start to the start of the next."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._last: float | None = None

    def tick(self) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self._observe(now - self._last)
        self._last = now

    def pause(self) -> None:
        """End without a next step; the last step is left out, since decoding follows it."""
        self._last = None
