"""Upload links: an address that takes one picture, once; whoever has it needs no key.

A link is its own proof: everything that it allows is signed in its address, so it needs no memory
and works on every server that shares the storage.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import time
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from castmate.decoding import ALLOWED
from castmate.errors import InvalidRequest, Problem
from castmate.file_kinds import CONVERT, recognise, suffix_of
from castmate.jobs.keys import Key
from castmate.jobs.storage import UPLOADS, Storage
from castmate.times import day_of
from castmate_mcp.http.body import MAX_PICTURE_BYTES, expected_bytes, read
from castmate_mcp.http.envelope import Refusal
from castmate_mcp.http.gateway import gateway

TICKET_S: Final = 3600.0
ANY_SIZE: Final = 0
_TICKET: Final = re.compile(r"([0-9]{1,12})-([0-9]{1,12})-([0-9a-f]{64})-([A-Za-z0-9_=-]+)")


async def put(request: Request) -> Response:
    """`PUT /upload/...`: the file of a ticket; no key comes with it."""
    here, now = gateway(request), time.time()
    storage, name = here.castmate.storage, request.path_params["name"]
    unknown = Refusal(403, "This upload address was not given by this server, or has expired.")
    if not (match := _TICKET.fullmatch(request.path_params["proof"])):
        raise unknown
    expires, size = int(match[1]), int(match[2])
    if (
        not hmac.compare_digest(match[3], _proof(storage, name, expires, size, match[4]))
        or now > expires
    ):
        raise unknown
    if await storage.exists(name):
        raise Refusal(409, "This upload address was used; ask for another one.")
    most = size or MAX_PICTURE_BYTES
    key = Key(base64.urlsafe_b64decode(match[4]).decode())
    num_bytes = expected_bytes(request, most)
    with here.gate.requests.hold_for(key), here.gate.body_bytes.hold_for(key, num_bytes):
        data = await read(request, most)
        if size != ANY_SIZE and len(data) != size:
            raise Refusal(400, f"The ticket is for {size} bytes, and {len(data)} came.")
        check_picture(data)
        await here.castmate.ledger.pictures.keep_upload_as(name, data, key.name)
    return Response()


def check_picture(data: bytes) -> str:
    """What its name ends with.

    Raises:
        InvalidRequest: It is not a picture that can be read.
    """
    if (suffix := suffix_of(data[:1024])) is None:
        kind = recognise(data[:1024])
        message = f"is {kind.name}, no picture" if kind else "is no picture"
        raise InvalidRequest([Problem("file", message, ALLOWED, kind.hint if kind else CONVERT)])
    return suffix


def upload_path(storage: Storage, name: str, size: int, key: Key, now: float) -> str:
    """The path of our server that takes a file once.

    Args:
        storage: Signs it.
        name: Under which the file will be there.
        size: Its bytes; ANY_SIZE where nobody knows them.
        key: Whose it will be.
        now: Seconds since 1970; it expires TICKET_S later.
    """
    expires = int(now + TICKET_S)
    owner = base64.urlsafe_b64encode(key.name.encode()).decode()
    return f"/upload/{expires}-{size}-{_proof(storage, name, expires, size, owner)}-{owner}/{name}"


def new_upload(suffix: str = ".png") -> str:
    """A name that nobody can guess."""
    return f"{UPLOADS}/{day_of(time.time())}/{secrets.token_hex(16)}{suffix}"


def _proof(storage: Storage, name: str, expires: int, size: int, owner: str) -> str:
    return storage.sign("upload", f"{expires}\n{size}\n{owner}\n{name}")


ROUTES: Final = (Route("/upload/{proof}/{name:path}", put, methods=["PUT"]),)
