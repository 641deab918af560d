"""Stand-ins for what is slow or far away."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import numpy as np
from PIL import Image

from castmate.clients.base import Progress, ProgressCallback
from castmate.clients.payments import Payments
from castmate.images import Reference, encode
from castmate.schema import GeneratedImage, GenerateRequest, GenerateResult


class FlatClient:
    """A client that draws flat pictures at once: the reference's colour, moved by the seed."""

    name = "flat"

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
        total = request.num_inference_steps * request.num_images
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
        )

    async def aclose(self) -> None:
        self.closed = True

    def _draw(self, request: GenerateRequest, colour: Any, seed: int) -> GeneratedImage:
        pixels = np.empty((request.height, request.width, 3), np.uint8)
        pixels[:] = (colour.astype(int) + seed) % 256
        data = encode(pixels, request.output_format)
        return GeneratedImage(data, request.output_format, request.width, request.height, seed)


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
