"""Uploads: a ticket for an upload link, or the file itself in a form; pictures only."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import PurePosixPath
from typing import Final

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response

from castmate.decoding import ALLOWED
from castmate.errors import InvalidRequest, Problem
from castmate.times import rfc3339
from castmate_mcp.http.body import (
    MAX_FORM_BYTES,
    MAX_PICTURE_BYTES,
    read,
    too_large,
)
from castmate_mcp.http.envelope import Refusal, success
from castmate_mcp.http.uploads import TICKET_S, check_picture, new_upload, upload_path
from castmate_mcp.rest.models import Uploaded, UploadInstruction, UploadTicket, UploadTicketQuery
from castmate_mcp.rest.operation import Call

_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".heic", ".heif")
_OF_TYPE: Final = {"image/jpeg": ".jpg"} | {
    f"image/{kind}": f".{kind}" for kind in ("webp", "gif", "avif", "heic", "heif")
}
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
    storage = call.gateway.castmate.storage
    upload = UploadInstruction(
        url=call.base_url + upload_path(storage, name, query.size, call.key, now),
        headers={"Content-Type": query.content_type},
        expires_at=rfc3339(expires),
    )
    return success(
        UploadTicket(
            download_url=call.gateway.file_url(call.base_url, name),
            filename=query.filename,
            size=query.size,
            upload=upload,
        )
    )


async def upload_form(call: Call) -> Response:
    """`POST /api/v3/media/upload/binary`: a form whose field `file` is the file."""
    async with sent_file(call) as (data, filename):
        name = await call.gateway.castmate.ledger.pictures.keep_upload(data, call.key.name)
    url = call.gateway.file_url(call.base_url, name)
    return success(Uploaded(download_url=url, filename=filename, size=len(data)))


@contextlib.asynccontextmanager
async def sent_file(call: Call) -> AsyncIterator[tuple[bytes, str]]:
    """The picture in the field `file` of a form, and what its sender calls it.

    Raises:
        InvalidRequest: There is none.
        Refusal: The form cannot be read, or is too large.
    """
    body = await read(call.request, MAX_FORM_BYTES)
    call.gateway.rate.take(call.key, len(body) // _MIB)
    if not body.rstrip().endswith(b"--"):  # the parser waits for the rest, and leaves a file open
        raise Refusal(400, "The form is not multipart/form-data, or was cut off.")

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        call.request.headers, whole(), max_files=1, max_fields=8, max_part_size=64 * 1024
    )
    # Larger files would go to a temporary one, and the disk may be read-only.
    parser.spool_max_size = MAX_FORM_BYTES
    with call.gateway.gate.body_bytes.hold_for(call.key, len(body)):
        yield await _file_of(parser)


async def _file_of(parser: MultiPartParser) -> tuple[bytes, str]:
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        why = getattr(error, "message", "") or "not multipart/form-data"
        raise Refusal(400, f"The form cannot be read: {why}. Send one field `file`.") from None
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidRequest([Problem("file", "is required", ALLOWED)])
        data, filename = await file.read(), file.filename or "upload"
    finally:
        await form.close()
    if len(data) > MAX_PICTURE_BYTES:
        raise too_large(MAX_PICTURE_BYTES)
    check_picture(data)
    return data, filename
