"""What `castmate doctor` finds out about Triton servers: whether the model of each answers."""

from __future__ import annotations

from collections.abc import Sequence

from castmate.clients.base import Check
from castmate.clients.triton import TritonClient
from castmate.errors import Unavailable
from castmate.settings import Settings


async def check(settings: Settings) -> Sequence[Check]:
    """Ask the model of each server."""
    return [await _check(url) for url in settings.triton_urls]


async def _check(url: str) -> Check:
    client = TritonClient((url,))
    try:
        state = await client.probe(url)
    except Unavailable as error:
        return Check("triton", False, url, str(error))
    finally:
        await client.aclose()
    usual = f"; by default {client.defaults.in_words}" if client.defaults else ""
    found = f"{url} draws with {state['model']}, {state['waiting']} wait{usual}"
    return Check("triton", True, found)
