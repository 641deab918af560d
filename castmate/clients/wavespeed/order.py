"""What is known of one request's pictures while they are paid for, made and fetched."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from castmate.clients.payments import Payment, Payments, PaymentState
from castmate.clients.wavespeed import failures
from castmate.clients.wavespeed.api import Sleep
from castmate.clients.wavespeed.parameters import MAX_SEED
from castmate.clients.wavespeed.replies import RemotePrediction
from castmate.errors import Unavailable
from castmate.pipeline.noise import image_seeds
from castmate.schema import GenerateRequest

WRITE_DELAYS_S: Final = (0.5, 1.0, 2.0, 4.0)
RESUMED = "resumed"  # a status of ours: WaveSpeed's is to be asked at once

_LOG: Final = logging.getLogger(__name__)


@dataclass
class Order:
    """One request on its way; pictures go by their index.

    Attributes:
        request: What was asked for.
        payments: Where it is written down.
        sleep: Waits.
        ends: When there is no more time for it, on the client's clock.
        seeds: Of each picture; -1 where an earlier attempt drew it and did not say.
        remotes: What WaveSpeed makes of those that were submitted.
        settled: Those whose payment is settled.
        paid: The remote names of those that are charged, as far as anybody knows.
        cost_usd: What they cost.
    """

    request: GenerateRequest
    payments: Payments
    sleep: Sleep
    ends: float
    seeds: list[int]
    remotes: dict[int, RemotePrediction] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    paid: dict[int, str] = field(default_factory=dict)
    cost_usd: float = 0.0

    @classmethod
    def of(cls, request: GenerateRequest, payments: Payments, sleep: Sleep, ends: float) -> Self:
        """An order of which nothing is submitted; draws its seed where the request has none."""
        count = request.num_images
        seed = request.seed if request.seed >= 0 else secrets.randbelow(MAX_SEED + 1 - count)
        return cls(request, payments, sleep, ends, image_seeds(seed, count))

    @property
    def missing(self) -> list[int]:
        """The pictures that nobody has been asked for."""
        return [i for i in range(self.request.num_images) if i not in self.remotes]

    async def resume(self, client: str) -> None:
        """Take over what earlier attempts paid; what they lost stays lost.

        Raises:
            MaybeCharged: One of them ended, or lost its reply, between paying and writing it down.
        """
        lost: Payment | None = None
        for payment in await self.payments.known():
            if payment.client != client or payment.state is PaymentState.RELEASED:
                continue
            if payment.remote_id is not None and payment.state is not PaymentState.UNKNOWN:
                self._take_over(payment, payment.remote_id)
                continue
            lost = lost or payment
            if payment.state is not PaymentState.UNKNOWN:
                await self.move(payment.index, PaymentState.UNKNOWN)
        if lost is not None:
            why = "the attempt that asked ended before it was written down"
            raise failures.lost(lost.index + 1, lost.price_usd, why)

    async def move(self, index: int, state: PaymentState, remote_id: str | None = None) -> bool:
        """Write how far a payment came; a ledger that is away for a moment is waited for.

        Returns:
            Whether it is written.
        """
        for delay_s in (*WRITE_DELAYS_S, None):
            try:
                await self.payments.move(index, state, remote_id)
                return True
            except Unavailable as error:
                _LOG.warning("Picture %d is %s, unwritten: %s", index + 1, state, error)
            if delay_s is not None:
                await self.sleep(delay_s)
        return False

    def warnings(self) -> Iterator[str]:
        """What an interruption has cost."""
        for number, seed in enumerate(self.seeds, 1):
            if seed < 0:
                yield f"The seed of picture {number} is not known: an earlier attempt drew it."

    def _take_over(self, payment: Payment, remote_id: str) -> None:
        index = payment.index
        self.remotes[index] = RemotePrediction(remote_id, RESUMED)
        self.paid[index] = remote_id
        self.cost_usd += payment.price_usd
        if payment.state is PaymentState.SETTLED:
            self.settled.add(index)
        if self.request.seed < 0:
            self.seeds[index] = -1
