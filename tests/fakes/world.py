"""The hosted client, the service that it talks to and a clock, together for a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from castmate.clients.wavespeed.client import WaveSpeedClient
from castmate.errors import CastmateError
from castmate.fetch import PinnedBackend
from castmate.images import Reference
from castmate.schema import GenerateRequest, GenerateResult
from castmate.settings import Settings
from tests.doubles import FakeClock, MemoryPayments, picture
from tests.fakes.http import PUBLIC, Tunnel
from tests.fakes.wavespeed import KEY, FakeWaveSpeed

REFERENCE = Reference.from_bytes(picture((64, 64)), "fox.png")


async def public(host: str, port: int) -> list[str]:
    return [PUBLIC]


@dataclass
class World:
    """A client, the service that it talks to, and a clock that nobody waits for."""

    fake: FakeWaveSpeed
    port: int
    clock: FakeClock
    payments: MemoryPayments
    client: WaveSpeedClient

    async def draw(self, prompt: str = "waving", **values: Any) -> GenerateResult:
        inputs = {"prompt": prompt, "image": "fox.png", "size": "512*512", "seed": 7} | values
        with anyio.fail_after(60):
            return await self.client.generate(
                GenerateRequest.parse(inputs), REFERENCE, payments=self.payments
            )

    async def fails(self, prompt: str, kind: type[CastmateError], **values: Any) -> CastmateError:
        with pytest.raises(kind) as caught:
            await self.draw(prompt, **values)
        assert type(caught.value) is kind
        assert KEY not in repr(caught.value) + str(caught.value.as_dict())
        return caught.value

    def another_client(
        self, submit_timeout_s: float = 30.0, read_timeout_s: float = 30.0, **changed: Any
    ) -> WaveSpeedClient:
        given = {
            "wavespeed_api_key": KEY,
            "wavespeed_base_url": f"http://127.0.0.1:{self.port}",
            "allow_http": True,
        }
        return WaveSpeedClient(
            Settings.load(**given | changed),
            clock=self.clock,
            sleep=self.clock.sleep,
            submit_timeout_s=submit_timeout_s,
            read_timeout_s=read_timeout_s,
            backend=PinnedBackend(public, Tunnel(self.port)),
        )

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[World]:
        fake, clock = FakeWaveSpeed(), FakeClock()
        async with fake.running() as port:
            made = cls(fake, port, clock, MemoryPayments(), None)  # type: ignore[arg-type]
            made.client = made.another_client()
            yield made
            await made.client.aclose()
