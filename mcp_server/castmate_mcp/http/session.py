"""Sessions of browsers: a key is typed once, and a cookie stands for it on pages of this server.

The cookie is its own proof, like an upload link: the key's name and an end, signed by the server.
It goes to REST alone, and counts only for what the server's own pages ask.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from structlog.contextvars import bind_contextvars

from castmate.jobs.keys import Key, Scope
from castmate.jobs.storage import Storage
from castmate_mcp.http.auth import bearer, caller, check_scope
from castmate_mcp.http.envelope import Refusal
from castmate_mcp.http.gateway import gateway

COOKIE: Final = "castmate_session"
LASTS_S: Final = 24 * 3600.0
_PATH: Final = "/api/v3"  # browsers send it nowhere else: not to /mcp
_COOKIE: Final = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_=-]{1,128})\.([0-9a-f]{64})")
_SAFE: Final = ("GET", "HEAD")
_OWN: Final = "same-origin"
_TYPED: Final = "none"  # an address that the user has typed, or a bookmark


@dataclass(frozen=True)
class Session:
    """What a cookie stands for.

    Attributes:
        key_name: Whose it is. Names are given once: that of a revoked key is nobody's.
        expires: When it ends, seconds since 1970.
    """

    key_name: str
    expires: int

    @classmethod
    def begin(cls, key: Key, now: float) -> Self:
        """One that begins now."""
        return cls(key.name, int(now + LASTS_S))

    @classmethod
    def of(cls, request: HTTPConnection, storage: Storage, now: float) -> Self | None:
        """That of a request; None where it brings none of ours, or it has ended."""
        if not (match := _COOKIE.fullmatch(request.cookies.get(COOKIE, ""))):
            return None
        try:
            name = base64.urlsafe_b64decode(match[2]).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        found = cls(name, int(match[1]))
        genuine = hmac.compare_digest(found._proof(storage), match[3])
        return found if genuine and now <= found.expires else None

    def store(self, response: Response, storage: Storage, *, secure: bool) -> None:
        """Give the cookie to a browser.

        Args:
            response: What goes to it.
            storage: Signs it.
            secure: Whether the browser speaks https with us.
        """
        name = base64.urlsafe_b64encode(self.key_name.encode()).decode()
        response.set_cookie(
            COOKIE,
            f"{self.expires}.{name}.{self._proof(storage)}",
            max_age=int(LASTS_S),
            path=_PATH,
            secure=secure,
            httponly=True,
            samesite="strict",
        )

    def _proof(self, storage: Storage) -> str:
        return storage.sign("session", f"{self.expires}\n{self.key_name}")


def end(response: Response) -> None:
    """Let a browser forget its cookie."""
    response.delete_cookie(COOKIE, path=_PATH, httponly=True, samesite="strict")


async def caller_or_session(request: Request, scope: Scope | None, now: float) -> Key:
    """Like `caller`; a browser's cookie stands for its key, unless a key comes with it.

    Raises:
        Refusal: 401 and 403 as `caller`; 403 too where another page than ours uses the cookie.
    """
    here = gateway(request)
    if bearer(request) is None and (found := Session.of(request, here.castmate.storage, now)):
        check_own_page(request)
        if (key := await here.castmate.keys.named(found.key_name)) is not None:
            bind_contextvars(key=key.name)
            return check_scope(key, scope)
    return await caller(request, scope)


def check_own_page(request: Request, *, else_a_program: bool = False) -> None:
    """Refuse what a page of another origin makes a browser ask for.

    Browsers say in headers that no page can change who asks: Sec-Fetch-Site over https and on this
    machine, Origin with everything that changes something.

    Args:
        request: What is asked.
        else_a_program: Let in who says neither: no browser does that, and no cookie is looked at.

    Raises:
        Refusal: 403, it is none of our pages, or does not say so.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    reads = request.method in _SAFE
    if site is not None:
        ours, shown = site == _OWN or (reads and site == _TYPED), f"Sec-Fetch-Site: {site[:40]}"
    elif origin is not None:
        ours, shown = _is_ours(request, origin), f"Origin: {origin[:200]}"
    else:
        ours, shown = reads or else_a_program, "neither Sec-Fetch-Site nor Origin"
    if not ours:
        raise Refusal(
            403,
            "A session counts only for the pages of this server, and this request came with "
            f"{shown}. Other programs send `Authorization: Bearer <key>`.",
        )


def _is_ours(request: Request, origin: str) -> bool:
    """Whether an origin is the server, by the address that the browser used or the operator's."""
    try:
        named = urlsplit(origin).netloc
    except ValueError:
        return False
    ours = {request.headers.get("host"), urlsplit(gateway(request).base_url(request)).netloc}
    return bool(named) and named in ours
