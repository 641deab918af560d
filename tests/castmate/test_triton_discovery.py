"""Names that stand for all Triton servers that run now."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import pytest

from castmate.clients.triton.discovery import REFRESH_S, Discovery
from castmate.errors import SettingsError, Unavailable
from castmate.settings import Settings

pytestmark = pytest.mark.anyio


class Names:
    """A name server, and the clock of whoever asks it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.addresses: list[str] = []
        self.is_away = False
        self.asked: list[tuple[str, int]] = []

    def clock(self) -> float:
        return self.now

    async def lookup(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        await asyncio.sleep(0)
        if self.is_away:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return list(self.addresses)

    def discovery(self, *addresses: str) -> Discovery:
        return Discovery(addresses, lookup=self.lookup, clock=self.clock)


async def test_a_name_stands_for_all_its_addresses_beside_servers_that_are_named_themselves() -> (
    None
):
    names = Names()
    names.addresses = ["10.0.0.2", "10.0.0.1", "fd00::7"]
    discovery = names.discovery("gpu-1:8001", "dns:///triton:8001")
    found = await discovery.servers()
    assert found == ["gpu-1:8001", "10.0.0.1:8001", "10.0.0.2:8001", "[fd00::7]:8001"]
    assert names.asked == [("triton", 8001)]


async def test_servers_that_come_and_go_are_seen_without_anybody_waiting_for_it() -> None:
    names = Names()
    names.addresses = ["10.0.0.1"]
    discovery = names.discovery("dns:///triton:8001")
    assert await discovery.servers() == ["10.0.0.1:8001"]
    names.addresses = ["10.0.0.2", "10.0.0.3"]
    assert await discovery.servers() == ["10.0.0.1:8001"]
    assert len(names.asked) == 1
    names.now += REFRESH_S
    assert await discovery.servers() == ["10.0.0.1:8001"]  # the lookup has only begun
    await asyncio.sleep(0.01)
    assert await discovery.servers() == ["10.0.0.2:8001", "10.0.0.3:8001"]
    assert len(names.asked) == 2


async def test_while_names_cannot_be_resolved_the_servers_that_were_known_are_kept() -> None:
    names = Names()
    names.addresses = ["10.0.0.1"]
    discovery = names.discovery("dns:///triton:8001")
    await discovery.servers()
    names.is_away = True
    for _ in range(3):
        names.now += REFRESH_S
        await discovery.servers()
        await asyncio.sleep(0.01)
    assert await discovery.servers() == ["10.0.0.1:8001"]


@pytest.mark.parametrize(
    ("is_away", "why"),
    [
        (True, "dns:///triton:8001 cannot be resolved: Temporary failure in name resolution."),
        (False, "dns:///triton:8001 has no address: no server runs."),
    ],
)
async def test_without_any_server_the_error_says_why(is_away: bool, why: str) -> None:
    names = Names()
    names.is_away = is_away
    with pytest.raises(Unavailable) as caught:
        await names.discovery("dns:///triton:8001").servers()
    assert str(caught.value) == why


async def test_closing_ends_a_lookup_that_hangs() -> None:
    started = asyncio.Event()

    async def hangs(host: str, port: int) -> Sequence[str]:
        started.set()
        await asyncio.Event().wait()
        return []

    discovery = Discovery(["dns:///triton:8001"], lookup=hangs)
    asking = asyncio.create_task(discovery.servers())
    async with asyncio.timeout(5):
        await started.wait()
        await discovery.aclose()
        with pytest.raises(Unavailable):
            await asking


@pytest.mark.parametrize("address", ["dns:///10.0.0.1:8001", "dns:///triton", "dns://triton:8001"])
def test_what_is_no_name_of_servers_is_refused_when_it_is_read(
    own_folder: object, address: str
) -> None:
    with pytest.raises(SettingsError, match="or dns:///triton:8001 for all servers of a name"):
        Settings.load(triton_urls=address)
    assert Settings.load(triton_urls="dns:///triton.gpus.svc:8001").triton_urls
