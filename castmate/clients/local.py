"""Generation in this process: the embedded default."""

from __future__ import annotations

import asyncio
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from castmate.clients.base import Progress, ProgressCallback
from castmate.clients.payments import Payments
from castmate.defaults import Defaults
from castmate.engines.residency import Residency
from castmate.errors import Cancelled
from castmate.framing import Framed
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GeneratedImage, GenerateRequest, GenerateResult, Matting
from castmate.settings import Settings


class LocalClient:
    """Runs a pipeline on its own thread, first come, first served."""

    name = "local"

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="castmate-local")
        self._closing = threading.Event()

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Load the bundle that the settings name.

        Raises:
            BundleError: It cannot be used; gives the reason.
            Unavailable: The GPU has too little memory left.
        """
        from castmate.pipeline.opening import open_bundle, open_pipeline  # loads an engine

        return cls(open_pipeline(open_bundle(settings), settings))

    @property
    def defaults(self) -> Defaults:
        """The bundle's."""
        return self._pipeline.bundle.manifest.defaults

    @property
    def styles(self) -> tuple[str, ...]:
        """The bundle's."""
        return self._pipeline.bundle.manifest.style_names

    @property
    def residency(self) -> Residency | None:
        """What of the bundle stays on the GPU."""
        return self._pipeline.residency

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
        payments: Payments | None = None,
    ) -> GenerateResult:
        """Queue a request and wait for its pictures.

        Cancelling the task returns at once; a waiting request leaves the queue and a running one
        stops before its next step.

        Raises:
            Cancelled: The client was closed in the meantime.
        """
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        images: list[GeneratedImage] = []

        def on_step(done: int, total: int) -> None:
            if stop.is_set() or self._closing.is_set():
                raise Cancelled(f"Stopped after {done} of {total} steps.")
            if on_progress is not None:
                progress = Progress(done, total, images=tuple(images))
                loop.call_soon_threadsafe(on_progress, progress)

        draw = functools.partial(self._pipeline.generate, request, reference, on_step)
        job = self._thread.submit(draw, images.append)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            stop.set()
            raise

    async def encode(self, reference: Reference) -> None:
        """Encode a character, after the requests that are already waiting."""
        await asyncio.wrap_future(self._thread.submit(self._pipeline.remember, reference))

    async def frame(self, reference: Reference, matting: Matting) -> Framed:
        """The framed reference; waits behind other requests only if the matte has to decide."""
        framer = self._pipeline.framer
        found = await asyncio.to_thread(framer.frame_alone, reference, matting)
        if found is None:
            job = self._thread.submit(framer.frame, reference, matting)
            found = await asyncio.wrap_future(job)
        return Framed(*found, framer.warnings(found[1], matting))

    async def aclose(self) -> None:
        """Stop the running request before its next step, drop waiting ones, and end the thread."""
        self._closing.set()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
