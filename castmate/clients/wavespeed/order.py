"""The state of one request's pictures while they are paid for, drawn and fetched."""

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
RESUMED = "resumed"  # Castmate's own status: ask WaveSpeed for the real one at once

_LOG: Final = logging.getLogger(__name__)


@dataclass
class Order:
    """One request in progress; pictures are named by their index.

    Attributes:
        request: The request.
        payments: Records each payment.
        sleep: Waits.
        ends: Its deadline on the client's clock, in seconds.
        seeds: Of each picture; -1 if an earlier attempt chose one but did not record it.
        remotes: WaveSpeed's predictions for the submitted pictures.
        settled: Pictures whose payment is settled.
        paid: WaveSpeed's ids of the pictures known to have been charged.
        cost_usd: What these cost.
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
        """An order with nothing submitted yet; chooses a seed if the request names none."""
        count = request.num_images
        seed = request.seed if request.seed >= 0 else secrets.randbelow(MAX_SEED + 1 - count)
        return cls(request, payments, sleep, ends, image_seeds(seed, count))

    @property
    def missing(self) -> list[int]:
        """The pictures that have not been submitted."""
        return [i for i in range(self.request.num_images) if i not in self.remotes]

    async def resume(self, client: str) -> None:
        """Take over what earlier attempts paid for; a lost reply stays lost.

        Raises:
            MaybeCharged: An earlier attempt lost a reply, or ended before it had recorded it.
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
            why = "the attempt that asked for it ended before it was recorded"
            raise failures.lost(lost.index + 1, lost.price_usd, why)

    async def move(self, index: int, state: PaymentState, remote_id: str | None = None) -> bool:
        """Record a payment's new state, waiting out a short outage of the ledger.

        Returns:
            Whether it was recorded.
        """
        for delay_s in (*WRITE_DELAYS_S, None):
            try:
                await self.payments.move(index, state, remote_id)
                return True
            except Unavailable as error:
                _LOG.warning("Picture %d is %s, not recorded: %s", index + 1, state, error)
            if delay_s is not None:
                await self.sleep(delay_s)
        return False

    def warnings(self) -> Iterator[str]:
        """Warnings about what an interruption lost."""
        for number, seed in enumerate(self.seeds, 1):
            if seed < 0:
                yield f"The seed of picture {number} is not known: an earlier attempt chose it."

    def _take_over(self, payment: Payment, remote_id: str) -> None:
        index = payment.index
        self.remotes[index] = RemotePrediction(remote_id, RESUMED)
        self.paid[index] = remote_id
        self.cost_usd += payment.price_usd
        if payment.state is PaymentState.SETTLED:
            self.settled.add(index)
        if self.request.seed < 0:
            self.seeds[index] = -1
