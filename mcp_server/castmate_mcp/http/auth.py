"""Who calls: a bearer key, or anyone on this machine where no key was ever created."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from structlog.contextvars import bind_contextvars

from castmate.addresses import is_here
from castmate.jobs.keys import LOCAL, Key, Scope
from castmate_mcp.http.envelope import Refusal
from castmate_mcp.http.gateway import gateway

_CHALLENGE: Final = {"www-authenticate": 'Bearer realm="castmate"'}


async def caller(connection: HTTPConnection, scope: Scope | None) -> Key:
    """The key of a request that may do what `scope` says; None is anything that a key may do.

    Raises:
        Refusal: 401 without a valid key; 403 with one for other things, or for a web page that
            tries to use a server without keys.
    """
    return check_scope(await key_of(connection, bearer(connection)), scope)


async def key_of(connection: HTTPConnection, secret: str | None) -> Key:
    """The key of a secret, or of none.

    Raises:
        Refusal: 401, it is not valid; 403, there are no keys, and another machine or page asks.
    """
    key = await gateway(connection).castmate.keys.admit(secret)
    if key is None:
        why = "is not valid, or was revoked" if secret else "is missing"
        raise Refusal(
            401,
            f"The API key {why}. Send `Authorization: Bearer <key>`; `castmate keys create NAME` "
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
    return key


def check_scope(key: Key, scope: Scope | None) -> Key:
    """The key, if it may do what `scope` says; None is anything.

    Raises:
        Refusal: 403, it may not.
    """
    if scope is not None and scope not in key.scopes:
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
