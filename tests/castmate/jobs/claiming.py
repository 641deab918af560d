"""What a worker does with the queue, in short."""

from __future__ import annotations

from collections.abc import Sequence

from castmate.jobs.claims import Claim, Claims
from castmate.jobs.predictions import StoredResult

RESULT = StoredResult((), "flat", "flat", {"total": 12.0}, ("odd",), 0.1, 14)


async def claim_one(claims: Claims, owner: str = "me") -> Claim:
    (claim,) = await claims.claim(owner, 1)
    return claim


async def order(claims: Claims) -> Sequence[str]:
    return [claim.id for claim in await claims.claim("me", 1000)]
