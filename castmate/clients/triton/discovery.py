"""Discovers Triton servers; some addresses are names that stand for all servers now running.

`dns:///triton-headless:8001` is gRPC's notation for every address of a name. In Kubernetes that is
a headless service: servers appear in it when they start and leave it when they stop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from castmate.addresses import DNS, Lookup, system_lookup
from castmate.errors import Unavailable

REFRESH_S: Final = 5.0  # as long as Kubernetes lets an answer be cached

_LOG: Final = logging.getLogger(__name__)


class Discovery:
    """Resolves the names repeatedly in the background, so that no request waits for a lookup."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        lookup: Lookup = system_lookup,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store the addresses without looking anything up.

        Args:
            addresses: host:port, or `dns:///host:port`.
            lookup: Gives the IP addresses of a host; only tests replace it.
            clock: Seconds; only tests replace it.
        """
        self._fixed = [address for address in addresses if not address.startswith(DNS)]
        self._names = [_Name(address) for address in addresses if address.startswith(DNS)]
        self._lookup, self._clock = lookup, clock

    async def servers(self) -> list[str]:
        """The servers known now, host:port; waits only for a name that was never resolved.

        Raises:
            Unavailable: There is no server, because names cannot be resolved.
        """
        asked = [name for name in self._names if self._clock() >= name.expires]
        for name in asked:
            self._start(name)
        if unknown := [name.asking for name in self._names if not name.found and name.asking]:
            await asyncio.wait(unknown)
        found = [*self._fixed, *(server for name in self._names for server in name.found)]
        if not found:
            raise Unavailable("\n".join(name.reason for name in self._names))
        return list(dict.fromkeys(found))

    async def aclose(self) -> None:
        """End the lookups."""
        asking = [name.asking for name in self._names if name.asking]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _start(self, name: _Name) -> None:
        if name.asking is None or name.asking.done():
            name.asking = asyncio.create_task(self._resolve(name))

    async def _resolve(self, name: _Name) -> None:
        host, _, port = name.address.removeprefix(DNS).rpartition(":")
        try:
            addresses = await self._lookup(host, int(port))
        except OSError as error:
            # The known servers are kept: each is probed before it draws anyway.
            name.reason = f"{name.address} cannot be resolved: {error.strerror or error}."
            _LOG.warning("%s", name.reason)
        else:
            name.found = sorted({_join(address, port) for address in addresses})
            name.reason = "" if name.found else f"{name.address} has no address: no server runs."
        name.expires = self._clock() + REFRESH_S


@dataclass(eq=False)
class _Name:
    address: str
    found: list[str] = field(default_factory=list)
    expires: float = 0.0
    reason: str = "it was not resolved yet."
    asking: asyncio.Task[None] | None = None


def _join(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ip_address(address).version == 6 else f"{address}:{port}"
