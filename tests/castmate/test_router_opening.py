"""Clients are opened from the settings, once, again where that failed, and all closed."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import anyio
import pytest

from castmate.clients import registry
from castmate.clients.base import Client
from castmate.errors import BundleMismatch
from castmate.router import Router, open_clients
from castmate.settings import Settings
from tests.castmate.routes import draw, failure, named, route
from tests.doubles import FlatClient

pytestmark = pytest.mark.anyio


async def test_a_client_that_cannot_be_opened_is_unavailable_and_opened_once_it_can() -> None:
    broken = True

    def opener() -> Client:
        if broken:
            raise BundleMismatch("Made for another GPU.")
        return named("local")

    router = Router({"local": opener, "triton": lambda: named("triton")}, deadline_s=60)
    router.open()
    with anyio.fail_after(5):
        while router.status()[0].up:
            await asyncio.sleep(0)
    assert [(s.name, s.up, s.last_error) for s in router.status()] == [
        ("local", False, "Made for another GPU."),
        ("triton", True, ""),
    ]
    result = await draw(router)
    assert result.warnings[0] == "local could not make it: Made for another GPU."
    broken = False
    assert (await draw(router)).client == "local"
    assert router.status()[0].up


async def test_a_client_is_opened_once_for_all_who_wait_for_it() -> None:
    opened = []

    def opener() -> Client:
        opened.append(named("local"))
        return opened[-1]

    router = Router({"local": opener}, deadline_s=60)
    await asyncio.gather(*(draw(router) for _ in range(5)))
    assert len(opened) == 1
    await router.aclose()
    assert opened[0].closed


async def test_a_call_waits_for_the_opening_and_does_not_stop_it_by_giving_up() -> None:
    loaded, local = threading.Event(), named("local")

    def slow() -> Client:
        assert loaded.wait(5)
        return local

    router = Router({"local": slow}, deadline_s=60)
    router.open()
    assert router.status()[0].up
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(draw, router)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert local.requests == []
        loaded.set()
        assert (await draw(router)).client == "local"
        await router.aclose()
    assert local.closed


async def test_closing_waits_for_a_client_that_is_just_opening() -> None:
    local = named("local")
    router = Router({"local": lambda: local}, deadline_s=60)
    router.open()
    await router.aclose()
    assert local.closed


async def test_closing_closes_every_client() -> None:
    clients = [named("local"), named("triton")]
    await route(*clients).aclose()
    assert all(client.closed for client in clients)


@pytest.fixture
def quick_local(monkeypatch: pytest.MonkeyPatch, own_folder: object) -> FlatClient:
    local = named("local")
    clients = [
        replace(entry, open=lambda settings: local) if entry.name == "local" else entry
        for entry in registry.CLIENTS
    ]
    monkeypatch.setattr(registry, "CLIENTS", clients)
    return local


async def test_clients_come_from_the_settings_and_those_not_set_up_are_told(
    quick_local: FlatClient,
) -> None:
    router = open_clients(Settings.load())
    assert (router.status()[0].name, router.status()[0].up) == ("local", True)
    (wavespeed,) = [status for status in router.status() if status.name == "wavespeed"]
    assert (wavespeed.up, wavespeed.last_error) == (
        False,
        "CASTMATE_WAVESPEED_API_KEY is not set",
    )
    assert (await draw(router)).client == "local"
    await router.aclose()


async def test_with_a_key_the_hosted_model_is_the_last_resort_in_the_order_of_the_settings(
    quick_local: FlatClient,
) -> None:
    settings = Settings.load(clients="wavespeed, local", wavespeed_api_key="wsk_x")
    router = open_clients(settings)
    assert [status.name for status in router.status()] == ["wavespeed", "local"]
    result = await draw(router)  # nobody keeps account here, so nothing may be paid
    assert result.client == "local"
    assert "wavespeed could not make it: WaveSpeed costs money" in result.warnings[0]
    await router.aclose()


async def test_when_no_client_is_set_up_the_variable_is_named(own_folder: object) -> None:
    router = open_clients(Settings.load(clients="wavespeed"))
    assert not any(status.up for status in router.status())
    assert "CASTMATE_CLIENTS names no client" in str(await failure(router))
    assert "WAVESPEED_API_KEY is not set" in str(await failure(router))
