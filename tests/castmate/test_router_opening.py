"""Clients are opened from the settings, once, again where that failed, and all closed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from castmate.clients import registry
from castmate.clients.base import Client
from castmate.errors import BundleMismatch, SettingsError
from castmate.router import Router
from castmate.settings import Settings
from tests.castmate.routes import draw, named, route
from tests.doubles import FlatClient

pytestmark = pytest.mark.anyio


async def test_a_client_that_cannot_be_opened_is_unavailable_and_opened_once_it_can() -> None:
    broken = True

    def opener() -> Client:
        if broken:
            raise BundleMismatch("Made for another GPU.")
        return named("local")

    router = Router({"local": opener, "triton": lambda: named("triton")}, deadline_s=60)
    await router.open()
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


async def test_closing_closes_every_client() -> None:
    clients = [named("local"), named("triton")]
    router = route(*clients)
    await router.open()
    await router.aclose()
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
    router = Router.of(Settings.load())
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
    router = Router.of(settings)
    assert [status.name for status in router.status()] == ["wavespeed", "local"]
    result = await draw(router)  # nobody keeps account here, so nothing may be paid
    assert result.client == "local"
    assert "wavespeed could not make it: WaveSpeed costs money" in result.warnings[0]
    await router.aclose()


async def test_when_no_client_is_set_up_the_variable_is_named(own_folder: object) -> None:
    with pytest.raises(SettingsError, match=r"CASTMATE_CLIENTS .*WAVESPEED_API_KEY is not set"):
        await Router.of(Settings.load(clients="wavespeed")).open()
