"""A client that exists only in the registry of a test."""

from __future__ import annotations

from collections.abc import Sequence

from castmate.clients.base import Check
from castmate.clients.registry import Entry
from castmate.settings import Settings
from tests.fakes.paid import PaidClient


def elsewhere() -> Entry:
    """Draws for $0.03; set up where CASTMATE_THREADS is 3."""

    async def check(settings: Settings) -> Sequence[Check]:
        return [Check("elsewhere", True, "it is there")]

    return Entry(
        "elsewhere",
        "Elsewhere",
        open=lambda settings: PaidClient("elsewhere", 0.03),
        check=check,
        lacks=lambda settings: "" if settings.threads == 3 else "CASTMATE_THREADS is not 3",
        price_usd=lambda settings: 0.03,
    )
