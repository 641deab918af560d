"""Stand-ins for what is slow or far away."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from castmate.clients.base import Client, Progress, ProgressCallback
from castmate.clients.payments import Payment, Payments, PaymentState
from castmate.defaults import CompleteRequest, Defaults
from castmate.errors import BudgetExceeded
from castmate.images import Reference, encode
from castmate.router import Router
from castmate.schema import (
    FramedReference,
    Framing,
    GeneratedImage,
    GenerateRequest,
    GenerateResult,
)

FRAMED = FramedReference(framing=Framing.ALPHA, box=(0.25, 0.0, 0.75, 1.0))

DEFAULTS = Defaults(
    num_inference_steps=28, guidance_scale=3.5, subject_scale=0.8, true_cfg_scale=4.0
)


class FlatClient:
    """A client that draws flat pictures at once: the reference's colour, moved by the seed."""

    name = "flat"
    defaults: Defaults | None = DEFAULTS

    def __init__(self, error: Exception | None = None, warnings: tuple[str, ...] = ()) -> None:
        self.requests: list[GenerateRequest] = []
        self.references: list[Reference] = []
        self.closed = False
        self._error, self._warnings = error, warnings

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
        payments: Payments | None = None,
    ) -> GenerateResult:
        self.requests.append(request)
        self.references.append(reference)
        complete = CompleteRequest.of(request, DEFAULTS)
        total = complete.num_inference_steps * request.num_images
        for step in range(total + 1):
            await asyncio.sleep(0)
            if on_progress:
                on_progress(Progress(step, total))
        if self._error:
            raise self._error
        colour = np.asarray(reference.image.resize((1, 1)))[0, 0]
        first = max(request.seed, 0)
        return GenerateResult(
            images=tuple(
                self._draw(request, colour, seed)
                for seed in range(first, first + request.num_images)
            ),
            client=self.name,
            model="flat",
            timings_ms={"total": 12.0},
            warnings=self._warnings,
            drawn_with=complete.drawn_with,
            reference=FRAMED,
        )

    async def aclose(self) -> None:
        self.closed = True

    def _draw(self, request: GenerateRequest, colour: Any, seed: int) -> GeneratedImage:
        pixels = np.empty((request.height, request.width, 3), np.uint8)
        pixels[:] = (colour.astype(int) + seed) % 256
        data = encode(pixels, request.output_format)
        return GeneratedImage(
            data=data,
            output_format=request.output_format,
            width=request.width,
            height=request.height,
            seed=seed,
        )


class StuckClient(FlatClient):
    """A client that starts and never ends, until its call is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.cancelled = asyncio.Event(), asyncio.Event()

    async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError("unreachable")


class SlowClient(FlatClient):
    """A client that draws as soon as it may."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.may_end = asyncio.Event(), asyncio.Event()

    async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
        self.started.set()
        await self.may_end.wait()
        return await super().generate(*args, **kwargs)


def routed(drawing: Client | Callable[[], Client], cooldown_s: float = 15.0) -> Router:
    """A router over one client, or over what opens it, for processes that draw with it alone."""
    if isinstance(drawing, Router):
        return drawing
    opener: Any = (lambda: drawing) if hasattr(drawing, "generate") else drawing
    name = getattr(drawing, "name", "drawing")
    known = {name: getattr(drawing, "defaults", None)}
    return Router({name: opener}, deadline_s=600, cooldown_s=cooldown_s, defaults=known)


class MemoryPayments:
    """The payments of one prediction, as a ledger keeps them, with a cap; nothing is durable."""

    def __init__(self, cap_usd: float = math.inf, *earlier: Payment) -> None:
        self.cap_usd = cap_usd
        self.payments = {payment.index: payment for payment in earlier}
        self.history: list[tuple[int, PaymentState]] = []

    @property
    def states(self) -> list[PaymentState]:
        return [payment.state for _, payment in sorted(self.payments.items())]

    async def known(self) -> Sequence[Payment]:
        return list(self.payments.values())

    async def reserve(self, index: int, client: str, price_usd: float) -> None:
        open_ = [p for p in self.payments.values() if p.state is not PaymentState.RELEASED]
        assert index not in [payment.index for payment in open_], "reserved twice"
        if sum(payment.price_usd for payment in open_) + price_usd > self.cap_usd + 1e-9:
            raise BudgetExceeded(f"${price_usd:.2f} would pass the cap. Nothing was charged.")
        self._write(Payment(index, client, PaymentState.SUBMITTING, price_usd))

    async def move(self, index: int, state: PaymentState, remote_id: str | None = None) -> None:
        payment, order = self.payments[index], list(PaymentState)
        assert order.index(payment.state) < order.index(state), "a payment moves down only"
        self._write(replace(payment, state=state, remote_id=remote_id or payment.remote_id))

    def _write(self, payment: Payment) -> None:
        self.payments[payment.index] = payment
        self.history.append((payment.index, payment.state))


class FakeClock:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)


def picture(size: tuple[int, int] = (64, 48), colour: str = "red", **options: Any) -> bytes:
    """An encoded flat picture; `options` are Pillow's, `format` among them."""
    return encoded(Image.new("RGB", size, colour), **options)


def encoded(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, **{"format": "PNG"} | options)
    return stream.getvalue()


def noise(size: tuple[int, int]) -> Image.Image:
    """The picture that compresses worst."""
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values)
