"""A client that costs money, and keeps the rules of payments."""

from __future__ import annotations

from dataclasses import replace

from castmate.clients.base import ProgressCallback
from castmate.clients.payments import Payments, PaymentState
from castmate.images import Reference
from castmate.schema import GenerateRequest, GenerateResult
from tests.doubles import FlatClient


class PaidClient(FlatClient):
    """Pays for its picture, then draws it."""

    def __init__(self, name: str = "paid", price_usd: float = 0.1) -> None:
        super().__init__()
        self.name, self._price_usd = name, price_usd

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
        payments: Payments | None = None,
    ) -> GenerateResult:
        assert payments is not None
        await payments.reserve(0, self.name, self._price_usd)
        await payments.move(0, PaymentState.SUBMITTED, "abc")
        await payments.move(0, PaymentState.SETTLED)
        result = await super().generate(request, reference, on_progress, payments)
        return replace(result, cost_usd=self._price_usd)
