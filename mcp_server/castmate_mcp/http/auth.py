"""Who calls: a bearer key, or anyone on this machine where no key was ever created."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from structlog.contextvars import bind_contextvars

from castmate.jobs.keys import LOCAL, Key, Scope
from castmate.settings import is_here
from castmate_mcp.http.envelope import Refusal
from castmate_mcp.http.gateway import gateway

_CHALLENGE: Final = {"www-authenticate": 'Bearer realm="castmate"'}


async def caller(connection: HTTPConnection, scope: Scope) -> Key:
    """The key of a request that may do what `scope` says.

    Raises:
        Refusal: 401 without a valid key; 403 with one for other things, or for a web page that
            tries to use a server without keys.
    """
    secret = bearer(connection)
    key = await gateway(connection).castmate.keys.admit(secret)
    if key is None:
        told = "is not valid, or was revoked" if secret else "is missing"
        raise Refusal(
            401,
            f"The API key {told}. Send `Authorization: Bearer <key>`; `castmate keys create NAME` "
            "on the server makes one.",
            headers=_CHALLENGE,
        )
    bind_contextvars(key=key.name)
    if key is LOCAL and not from_here(connection.headers):
        raise Refusal(
            403,
            "This server has no keys, so it answers programs of this machine alone. Create a key "
            "with `castmate keys create NAME` and send it.",
        )
    if scope not in key.scopes:
        raise Refusal(
            403,
            f"The API key {key.name!r} has no scope {scope.value!r}, only "
            f"{', '.join(sorted(key.scopes))}. Use another key, or create one with --scope.",
        )
    return key


def bearer(connection: HTTPConnection) -> str | None:
    """The secret of the Authorization header."""
    kind, _, secret = connection.headers.get("authorization", "").partition(" ")
    return secret.strip() or None if kind.lower() == "bearer" else None


def from_here(headers: Headers) -> bool:
    """Whether a program of this machine asks.

    A web page that a browser here shows is no such program: its Host or its Origin is elsewhere.
    """
    hosts = [urlsplit(f"//{headers.get('host', '')}").hostname]
    if (origin := headers.get("origin")) is not None:
        hosts.append(urlsplit(origin).hostname)
    return all(host is not None and is_here(host) for host in hosts)
