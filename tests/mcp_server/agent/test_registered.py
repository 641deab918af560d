"""What agents are told of a client comes from its entry in the registry."""

from __future__ import annotations

import pytest

from castmate.clients import registry
from castmate.errors import SettingsError
from castmate.router import Router
from castmate.settings import Settings
from tests.doubles import FlatClient
from tests.fakes.registered import elsewhere
from tests.mcp_server.conftest import Connect

pytestmark = pytest.mark.anyio


async def test_get_status_says_the_licence_of_the_model_on_this_machine(connect: Connect) -> None:
    async with connect(FlatClient()) as agent:
        assert (await agent.succeed("get_status"))["licence"] == "Apache-2.0 (toon)"
    async with connect(FlatClient(), clients="triton", triton_urls="127.0.0.1:1") as agent:
        assert (await agent.succeed("get_status"))["licence"] == ""


async def test_a_registered_client_is_listed_priced_and_paid_after_the_user_agreed(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "CLIENTS", (*registry.CLIENTS, elsewhere()))
    settings = {"clients": "elsewhere", "threads": 3}
    router = Router.of(Settings.load(**settings))
    async with connect(router, **settings) as agent:
        status = await agent.succeed("get_status", num_images=2)
        assert status["cost_usd"] == pytest.approx(0.06)
        (client,) = status["clients"]
        assert (client["name"], client["up"], client["paid"]) == ("elsewhere", True, True)
        assert "Elsewhere would cost about $0.03" in await agent.fail()
        assert (await agent.succeed(accept_cost_usd=0.03))["client"] == "elsewhere"


async def test_a_client_that_does_not_exist_ends_the_start_of_a_server(connect: Connect) -> None:
    with pytest.raises(SettingsError, match="no such client as openai; there are triton, local"):
        async with connect(FlatClient(), clients="openai"):
            pass
