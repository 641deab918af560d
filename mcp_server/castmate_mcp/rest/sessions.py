"""Begins, shows and ends the session of a browser."""

from __future__ import annotations

import time
from typing import Final

from starlette.responses import Response

from castmate.jobs.keys import LOCAL, Key
from castmate.times import rfc3339
from castmate_mcp.http import session
from castmate_mcp.http.auth import key_of
from castmate_mcp.http.envelope import success
from castmate_mcp.http.session import Session
from castmate_mcp.rest.models import Deleted
from castmate_mcp.rest.operation import Call
from castmate_mcp.rest.session_models import SessionOut, SessionQuery

MAX_BODY_BYTES: Final = 64 * 2**10
"""Of who has no key yet, little is read."""


async def begin(call: Call) -> Response:
    """`POST /api/v3/session`: the key comes back as a cookie that no script can read."""
    session.check_own_page(call.request, else_a_program=True)
    query = await call.json(SessionQuery, MAX_BODY_BYTES)
    key = await key_of(call.request, query.key.strip() or None)
    if key is LOCAL:
        return success(_told(key, None))
    begun = Session.begin(key, time.time())
    response = success(_told(key, begun))
    secure = call.base_url.startswith("https:")
    begun.store(response, call.gateway.castmate.storage, secure=secure)
    return response


async def show(call: Call) -> Response:
    """`GET /api/v3/session`: whose it is and what it may be used for; the same of a key."""
    found = Session.of(call.request, call.gateway.castmate.storage, time.time())
    is_of_cookie = found is not None and found.key_name == call.key.name
    return success(_told(call.key, found if is_of_cookie else None))


async def end(call: Call) -> Response:
    """`DELETE /api/v3/session`: the browser forgets the cookie."""
    session.check_own_page(call.request, else_a_program=True)
    response = success(Deleted(id="session"))
    session.end(response)
    return response


def _told(key: Key, found: Session | None) -> SessionOut:
    return SessionOut(
        key=key.name,
        scopes=sorted(key.scopes),
        expires_at=rfc3339(found.expires) if found else None,
    )
