"""Host addresses: which are this machine, which are public, and how a server's is written."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

# `is_global` accepts these, although they embed or reach private IPv4 addresses.
_NAT64: Final = [ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48")]
_NOT_PUBLIC: Final = [
    ip_network(text)
    for text in (
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "::/96",
        "2001::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
]
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_SERVER: Final = re.compile(
    rf"(?:{_LABEL}(?:\.{_LABEL})*\.?|\[(?P<ipv6>[0-9A-Fa-f:.]+)\]):(?P<port>[0-9]{{1,5}})"
)

DNS: Final = "dns:///"
"""Prefix of a host:port that stands for servers at all addresses of the host, as in gRPC."""

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]


def is_here(host: str) -> bool:
    """Whether a host is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_public(text: str) -> bool:
    """Whether an IP address is publicly reachable."""
    ip = ip_address(text.split("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    elif any(ip in network for network in _NAT64):
        ip = ip_address(int(ip) & 0xFFFF_FFFF)
    if any(ip in network for network in _NOT_PUBLIC):
        return False
    return ip.is_global and not (
        ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local
    )


def is_server(text: str) -> bool:
    """Whether a text is host:port, with an IPv6 address in brackets."""
    if not (match := _SERVER.fullmatch(text)) or not 0 < int(match["port"]) < 65_536:
        return False
    if re.fullmatch(r"[\d.]+", host := text.rpartition(":")[0]) or match["ipv6"]:
        try:
            ip_address(match["ipv6"] or host)
        except ValueError:
            return False
    return True


def is_servers_name(text: str) -> bool:
    """Whether a text is `dns:///host:port`, where the host is a name."""
    server = text.removeprefix(DNS)
    host = server.rpartition(":")[0]
    named = not re.fullmatch(r"[\d.]+|\[.*\]", host)
    return text.startswith(DNS) and named and is_server(server)


async def system_lookup(host: str, port: int) -> list[str]:
    """The addresses of a host, best first, as the system resolves them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]
