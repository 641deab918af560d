"""Routers over named clients, and short ways to draw with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from castmate.clients.base import Client
from castmate.errors import BudgetExceeded, CastmateError, Unavailable
from castmate.images import Reference
from castmate.router import Router
from castmate.schema import GenerateRequest, GenerateResult
from tests.doubles import FlatClient, picture

REQUEST = GenerateRequest.parse(
    {"prompt": "waving", "image": "-", "size": "512*512", "seed": 7, "num_inference_steps": 2}
)
REFERENCE = Reference.from_bytes(picture(), "fox.png")
DOWN = Unavailable("Down.")
CAPPED = BudgetExceeded("$0.10 would pass the cap. Nothing was charged.")


def named(name: str, client: FlatClient | None = None, **options: Any) -> FlatClient:
    made = client or FlatClient(**options)
    made.name = name
    return made


def route(*clients: FlatClient, **options: Any) -> Router:
    openers: dict[str, Callable[[], Client]] = {
        client.name: lambda client=client: client  # type: ignore[misc]
        for client in clients
    }
    return Router(openers, **{"deadline_s": 60.0} | options)


async def draw(router: Router, **options: Any) -> GenerateResult:
    with anyio.fail_after(60):
        return await router.generate(REQUEST, REFERENCE, **options)


async def failure(router: Router, **options: Any) -> CastmateError:
    with pytest.raises(CastmateError) as caught:
        await draw(router, **options)
    return caught.value
