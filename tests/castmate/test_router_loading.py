"""While a model loads, only its pictures wait; if it cannot be opened, the reason is said."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from castmate.clients.base import Client
from castmate.errors import BundleNotFound, SettingsError
from castmate.images import Reference
from castmate.route import ClientStatus
from castmate.router import Router
from castmate.schema import GenerateRequest
from castmate.service import Castmate
from castmate.settings import Settings
from tests.castmate.jobs.conftest import submitter
from tests.castmate.routes import REFERENCE, REQUEST, named
from tests.doubles import FlatClient, picture, routed

pytestmark = pytest.mark.anyio

FOX = Reference.from_bytes(picture(), "fox")


class Loading:
    """Opens a client as soon as it may."""

    def __init__(self) -> None:
        self.may_end, self.drawing = threading.Event(), FlatClient()

    def __call__(self) -> Client:
        assert self.may_end.wait(10)
        return self.drawing


class Keeping(FlatClient):
    """A client that keeps encoded characters."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[Reference] = []

    async def encode(self, reference: Reference) -> None:
        self.encoded.append(reference)


def opener(*outcomes: Client | Exception) -> Callable[[], Client]:
    """Gives or raises one outcome a call."""
    left = iter(outcomes)

    def open_next() -> Client:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return open_next


async def opened(router: Router) -> tuple[ClientStatus, ...]:
    """The status of a router once none of its clients is opening."""
    with anyio.fail_after(10):
        while any(client.opening for client in router.status()):
            await anyio.sleep(0.005)
    return router.status()


async def test_a_process_that_works_answers_while_the_model_loads_and_draws_what_waited(
    own_folder: Path,
) -> None:
    loading = Loading()
    with anyio.fail_after(30):
        async with Castmate.open(Settings.load(), router=routed(loading)) as castmate:
            castmate.work()
            submitted = await submitter(castmate.ledger, FOX)()
            (client,) = castmate.router.status()
            assert (client.up, client.opening, client.last_error) == (True, True, "")
            assert not (await castmate.ledger.get(submitted.id)).state.final
            loading.may_end.set()
            assert (await castmate.ledger.wait(submitted.id)).images
            assert not castmate.router.status()[0].opening
    assert loading.drawing.closed


async def test_nothing_is_opened_by_a_process_that_only_looks(own_folder: Path) -> None:
    def unwanted() -> Client:
        raise AssertionError("opened")

    async with Castmate.open(Settings.load(), router=routed(unwanted)) as castmate:
        assert list(await castmate.ledger.list()) == []


async def test_what_failed_to_open_is_said_and_opened_by_the_next_picture(
    own_folder: Path,
) -> None:
    router = routed(opener(BundleNotFound("no bundle"), FlatClient()))
    with anyio.fail_after(30):
        async with Castmate.open(Settings.load(), router=router) as castmate:
            castmate.work()
            (client,) = await opened(router)
            assert (client.up, client.last_error) == (False, "no bundle")
            submitted = await submitter(castmate.ledger, FOX)()
            assert (await castmate.ledger.wait(submitted.id)).images
            assert router.status()[0].up


async def test_a_process_without_any_client_works_and_every_picture_fails_with_the_reason(
    own_folder: Path,
) -> None:
    with anyio.fail_after(30):
        async with Castmate.open(Settings.load(clients="wavespeed")) as castmate:
            castmate.work()
            submitted = await submitter(castmate.ledger, FOX)()
            error = (await castmate.ledger.wait(submitted.id)).error
            assert error is not None
            assert "WAVESPEED_API_KEY is not set" in error["message"]
            with pytest.raises(SettingsError, match="WAVESPEED_API_KEY is not set"):
                await castmate.generate(submitted.request, FOX)


async def test_a_call_that_is_given_up_does_not_stop_the_opening() -> None:
    loading = Loading()
    router = routed(loading)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(router.generate, REQUEST, REFERENCE)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        loading.may_end.set()
        assert (await router.generate(REQUEST, REFERENCE)).client == "flat"
        await router.aclose()


async def test_closing_waits_for_what_is_opening_and_is_quiet_about_its_failure() -> None:
    with anyio.fail_after(10):
        loading = Loading()
        router = Router({"slow": loading, "broken": opener(BundleNotFound("no"))}, deadline_s=60)
        async with anyio.create_task_group() as group:
            group.start_soon(router.open)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        loading.may_end.set()
        await router.aclose()
        assert loading.drawing.closed


async def test_a_character_is_encoded_by_who_keeps_it_as_soon_as_it_is_open() -> None:
    keeping = Keeping()
    router = Router({"flat": lambda: named("flat"), "keeping": lambda: keeping}, deadline_s=60)
    await router.encode(FOX)
    assert keeping.encoded == []
    await router.open()
    await router.encode(FOX)
    assert keeping.encoded == [FOX]
    request = GenerateRequest.parse({"prompt": "waving", "image": "-", "size": "512*512"})
    assert (await router.generate(request, FOX)).client == "flat"
