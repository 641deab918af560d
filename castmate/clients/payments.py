"""What a paying client tells the ledger, so that nothing is paid twice and no cap is passed.

The client knows prices and remote ids; the ledger behind this interface knows keys, caps and disks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class PaymentState(StrEnum):
    """How far one paid submission came; it only moves down this list."""

    SUBMITTING = "submitting"  # written before the paid call: after a crash it may be charged
    SUBMITTED = "submitted"  # its remote id is known: poll that, never submit again
    SETTLED = "settled"  # charged, and its picture or its failure is known
    RELEASED = "released"  # certainly not charged: it no longer counts against any cap
    UNKNOWN = "unknown"  # the reply was lost: counts as charged and is never sent again


@dataclass(frozen=True)
class Payment:
    """One paid submission of a prediction.

    Attributes:
        index: Which picture of the request it is for.
        client: Who is paid.
        state: How far it came.
        price_usd: What was reserved for it.
        remote_id: The hosted prediction, once it is known.
    """

    index: int
    client: str
    state: PaymentState
    price_usd: float
    remote_id: str | None = None


class Payments(Protocol):
    """The payments of one prediction, over all its attempts; every write is durable on return."""

    async def known(self) -> Sequence[Payment]:
        """What this and earlier attempts wrote."""
        ...

    async def reserve(self, index: int, client: str, price_usd: float) -> None:
        """Write `SUBMITTING` for picture `index`, within every cap.

        Raises:
            BudgetExceeded: A cap would be passed; nothing was written.
        """
        ...

    async def move(self, index: int, state: PaymentState, remote_id: str | None = None) -> None:
        """Write how far the payment of picture `index` came."""
        ...
