"""Uploads: by a ticket whose address takes the file, or as a form; pictures only.

A ticket is its own proof: everything that it allows is signed in its address, so it needs no
memory and works on every server that shares the storage.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import AsyncGenerator
from pathlib import PurePosixPath
from typing import Final

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from castmate.errors import InvalidRequest, Problem
from castmate.jobs.storage import UPLOADS, Storage, day_of
from castmate_mcp.http.body import (
    MAX_FORM_BYTES,
    MAX_PICTURE_BYTES,
    expected_bytes,
    read,
    too_large,
)
from castmate_mcp.http.envelope import Refusal, success
from castmate_mcp.http.gateway import gateway
from castmate_mcp.rest.models import UploadTicketQuery
from castmate_mcp.rest.operation import Call
from castmate_mcp.rest.telling import as_time

TICKET_S: Final = 3600.0
ANY_SIZE: Final = 0
_TICKET: Final = re.compile(r"([0-9]{1,12})-([0-9]{1,12})-([0-9a-f]{64})")
_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".gif")
_OF_TYPE: Final = {"image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif"}
_MIB: Final = 2**20


async def ticket(call: Call) -> Response:
    """`POST /api/v3/media/uploads`: where to send a file, and where it will be."""
    query = await call.json(UploadTicketQuery)
    kind = query.content_type.partition(";")[0].strip().lower()
    if not (kind.startswith("image/") or kind == "application/octet-stream"):
        raise InvalidRequest([Problem("content_type", f"{kind!r} is no picture", "image/...")])
    if query.size > MAX_PICTURE_BYTES:
        raise too_large(MAX_PICTURE_BYTES)
    call.gateway.rate.take(call.key, query.size // _MIB)
    suffix = PurePosixPath(query.filename).suffix.lower()
    if suffix not in _SUFFIXES:
        suffix = _OF_TYPE.get(kind, ".png")
    name, now = new_upload(suffix), time.time()
    expires = int(now + TICKET_S)
    storage = call.gateway.service.jobs.storage
    upload = {
        "method": "PUT",
        "url": call.base_url + upload_path(storage, name, query.size, now),
        "headers": {"Content-Type": query.content_type},
        "expires_at": as_time(expires),
    }
    told = _uploaded(call, name, query.filename, query.size) | {"upload": upload}
    return success(told)


async def put(request: Request) -> Response:
    """`PUT /upload/...`: the file of a ticket; no key comes with it."""
    here, now = gateway(request), time.time()
    storage, name = here.service.jobs.storage, request.path_params["name"]
    unknown = Refusal(403, "This upload address was not given by this server, or has expired.")
    if not (match := _TICKET.fullmatch(request.path_params["proof"])):
        raise unknown
    expires, size = int(match[1]), int(match[2])
    if not hmac.compare_digest(match[3], _proof(storage, name, expires, size)) or now > expires:
        raise unknown
    if await storage.exists(name):
        raise Refusal(409, "This upload address was used; ask for another one.")
    most = size or MAX_PICTURE_BYTES
    with here.gate.inside(), here.gate.holding(expected_bytes(request, most)):
        data = await read(request, most)
        if size != ANY_SIZE and len(data) != size:
            raise Refusal(400, f"The ticket is for {size} bytes, and {len(data)} came.")
        _check_picture(data)
        await storage.put(name, data)
    return Response()


async def upload_form(call: Call) -> Response:
    """`POST /api/v3/media/upload/binary`: a form whose field `file` is the file."""
    body = await read(call.request, MAX_FORM_BYTES)
    call.gateway.rate.take(call.key, len(body) // _MIB)
    if not body.rstrip().endswith(b"--"):  # the parser waits for the rest, and leaves a file open
        raise Refusal(400, "The form is not multipart/form-data, or was cut off.")

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        call.request.headers, whole(), max_files=1, max_fields=8, max_part_size=64 * 1024
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        told = getattr(error, "message", "") or "not multipart/form-data"
        raise Refusal(400, f"The form cannot be read: {told}. Send one field `file`.") from None
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidRequest([Problem("file", "is required", "a PNG, JPEG, WEBP or GIF file")])
        data, filename = await file.read(), file.filename or "upload"
    finally:
        await form.close()
    if len(data) > MAX_PICTURE_BYTES:
        raise too_large(MAX_PICTURE_BYTES)
    name = new_upload(_check_picture(data))
    await call.gateway.service.jobs.storage.put(name, data)
    return success(_uploaded(call, name, filename, len(data)))


def sniff(start: bytes) -> str | None:
    """The suffix of a picture by its first bytes, or None."""
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if start.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return ".webp"
    return ".gif" if start[:6] in (b"GIF87a", b"GIF89a") else None


def _check_picture(data: bytes) -> str:
    """Its suffix.

    Raises:
        InvalidRequest: It is none.
    """
    if (suffix := sniff(data[:16])) is None:
        raise InvalidRequest(
            [Problem("file", "is no picture", "a PNG, JPEG, WEBP or GIF picture", "Convert it.")]
        )
    return suffix


def upload_path(storage: Storage, name: str, size: int, now: float) -> str:
    """The path of our server that takes a file once.

    Args:
        storage: Signs it.
        name: Under which the file will be there.
        size: Its bytes; ANY_SIZE where nobody knows them.
        now: Seconds since 1970; it expires TICKET_S later.
    """
    expires = int(now + TICKET_S)
    return f"/upload/{expires}-{size}-{_proof(storage, name, expires, size)}/{name}"


def new_upload(suffix: str = ".png") -> str:
    """A name that nobody can guess."""
    return f"{UPLOADS}/{day_of(time.time())}/{secrets.token_hex(16)}{suffix}"


def _proof(storage: Storage, name: str, expires: int, size: int) -> str:
    return storage.sign("upload", f"{expires}\n{size}\n{name}")


def _uploaded(call: Call, name: str, filename: str, size: int) -> dict[str, object]:
    url = call.gateway.file_url(call.base_url, name)
    return {"type": "image", "download_url": url, "filename": filename, "size": size}


PUT_ROUTE: Final = Route("/upload/{proof}/{name:path}", put, methods=["PUT"])
