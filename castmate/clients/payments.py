"""How a paying client records payments, so that nothing is paid twice and no cap is exceeded.

The client knows prices and remote ids; the ledger behind this interface knows keys, caps and disks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class PaymentState(StrEnum):
    """The state of one paid submission; it only moves down this list."""

    SUBMITTING = "submitting"  # recorded before the paid call: after a crash it may be charged
    SUBMITTED = "submitted"  # its remote id is known: poll it, never submit again
    SETTLED = "settled"  # charged, and its picture or failure is known
    RELEASED = "released"  # certainly not charged: no longer counts against any cap
    UNKNOWN = "unknown"  # the reply was lost: counts as charged, never sent again


@dataclass(frozen=True)
class Payment:
    """One paid submission of a prediction.

    Attributes:
        index: The picture of the request that it is for.
        client: The client that is paid.
        state: How far it has come.
        price_usd: The amount reserved for it.
        remote_id: The hosted prediction's id, once it is known.
    """

    index: int
    client: str
    state: PaymentState
    price_usd: float
    remote_id: str | None = None


class Payments(Protocol):
    """The payments of one prediction, over all its attempts; every write is durable on return."""

    async def known(self) -> Sequence[Payment]:
        """The payments that this and earlier attempts recorded."""
        ...

    async def reserve(self, index: int, client: str, price_usd: float) -> None:
        """Record `SUBMITTING` for picture `index`, within every cap.

        Raises:
            BudgetExceeded: It would exceed a cap; nothing was recorded.
        """
        ...

    async def move(self, index: int, state: PaymentState, remote_id: str | None = None) -> None:
        """Record the new state of the payment of picture `index`."""
        ...
