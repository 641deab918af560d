"""Which proxy the environment names for a URL: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY."""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import (  # type: ignore[attr-defined]
    getproxies_environment,
    proxy_bypass_environment,
)

from castmate.addresses import is_here, is_public, system_lookup
from castmate.errors import SettingsError

# gRPC reads these itself, only in this spelling.
_OF_GRPC = ("grpc_proxy", "https_proxy", "http_proxy")


def proxy_for(url: str) -> str | None:
    """The proxy for a URL; None for this machine and for hosts that NO_PROXY names.

    Raises:
        SettingsError: The environment names a kind of proxy that is not supported.
    """
    parts = urlsplit(url)
    host, named = parts.hostname or "", getproxies_environment()
    if is_here(host) or proxy_bypass_environment(host, named):
        return None
    if not (proxy := named.get(parts.scheme) or named.get("all")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        raise SettingsError(
            f"{parts.scheme.upper()}_PROXY, ALL_PROXY: proxies of the kind "
            f"{proxy.partition(':')[0]}:// are not supported; name an http:// or https:// one, or "
            f"add {host} to NO_PROXY."
        )
    return proxy


async def is_direct(address: str) -> bool:
    """Whether a gRPC server, host:port, is reached without a proxy: here, or in a private network.

    gRPC itself would send even loopback addresses through `http_proxy`. A name that this machine
    cannot look up is left to the proxy.
    """
    if not any(os.environ.get(name) for name in _OF_GRPC):
        return True
    try:
        host, _, port = address.rpartition(":")
        found = await system_lookup(host.strip("[]"), int(port))
    except OSError:
        return False
    return not any(map(is_public, found))
