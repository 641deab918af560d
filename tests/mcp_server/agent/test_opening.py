"""Loading a model does not keep an agent's host waiting, and its failure reaches the agent."""

from __future__ import annotations

import threading
from collections.abc import Callable

import anyio
import pytest

from castmate.clients.base import Client
from castmate.errors import BundleNotFound
from castmate.images import Reference
from castmate.schema import GenerateRequest
from castmate_mcp.opening import OpeningClient
from tests.doubles import FlatClient, picture

pytestmark = pytest.mark.anyio

REQUEST = GenerateRequest.parse({"prompt": "waving", "image": "-", "size": "512*512"})
FOX = Reference.from_bytes(picture(), "fox")


def opener(*outcomes: Client | Exception) -> Callable[[], Client]:
    """Gives or raises one outcome a call."""
    left = iter(outcomes)

    def open_next() -> Client:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return open_next


async def test_a_call_waits_until_the_client_is_open() -> None:
    loaded, drawing = threading.Event(), FlatClient()

    def slow() -> Client:
        assert loaded.wait(5)
        return drawing

    with anyio.fail_after(5):
        client = OpeningClient(slow)
        assert client.name == "opening"
        async with anyio.create_task_group() as group:
            group.start_soon(client.generate, REQUEST, FOX)
            await anyio.wait_all_tasks_blocked()
            assert drawing.requests == []
            loaded.set()
        assert client.name == "flat"
        assert drawing.requests == [REQUEST]
        await client.aclose()
    assert drawing.closed


async def test_a_failure_reaches_the_caller_and_the_next_call_tries_again() -> None:
    drawing = FlatClient()
    with anyio.fail_after(5):
        client = OpeningClient(opener(BundleNotFound("no bundle"), drawing))
        with pytest.raises(BundleNotFound, match="no bundle"):
            await client.generate(REQUEST, FOX)
        assert (await client.generate(REQUEST, FOX)).client == "flat"
        await client.aclose()


async def test_giving_up_a_call_does_not_stop_the_opening() -> None:
    loaded, drawing = threading.Event(), FlatClient()

    def slow() -> Client:
        assert loaded.wait(5)
        return drawing

    with anyio.fail_after(5):
        client = OpeningClient(slow)
        async with anyio.create_task_group() as group:
            group.start_soon(client.generate, REQUEST, FOX)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        loaded.set()
        assert (await client.generate(REQUEST, FOX)).client == "flat"
        await client.aclose()


async def test_closing_after_a_failure_is_quiet() -> None:
    with anyio.fail_after(5):
        await OpeningClient(opener(BundleNotFound("no bundle"))).aclose()
