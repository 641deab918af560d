"""Which addresses are public, in whatever dress they come."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castmate.addresses import is_public
from tests.fakes.http import PUBLIC
from tests.fakes.web import OTHER_PUBLIC


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.255.255.255",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_address_that_is_not_public_is_known_as_such(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, OTHER_PUBLIC, "8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_a_public_address_is_known_as_such(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_every_ipv6_dress(address: IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        dressed = IPv6Address(int(IPv6Address(prefix)) | int(address))
        assert is_public(str(dressed)) == is_public(str(address))
    for network in ("::/96", "2002::/16"):
        shift = 0 if network == "::/96" else 80
        dressed = IPv6Address(int(ip_network(network).network_address) | int(address) << shift)
        assert not is_public(str(dressed))
