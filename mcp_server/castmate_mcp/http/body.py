"""Reads what a caller sends, within limits of size and depth."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request

from castmate.images import MAX_BYTES
from castmate_mcp.http.envelope import Refusal

MAX_PICTURE_BYTES: Final = MAX_BYTES
# A picture as a data URI is a third longer than it is; the rest of a body is small.
MAX_JSON_BYTES: Final = MAX_BYTES * 4 // 3 + 64 * 2**10
MAX_FORM_BYTES: Final = MAX_BYTES + 64 * 2**10
MAX_JSON_DEPTH: Final = 16
_DRAINED_BYTES: Final = 64 * 2**20
_READ_S: Final = 120.0


def expected_bytes(request: Request, limit: int) -> int:
    """How much of a body may have to be held: what it announces, else all that is allowed.

    Raises:
        Refusal: 400, what it announces is no number.
    """
    if (announced := request.headers.get("content-length")) is not None:
        if not (announced.isascii() and announced.isdigit() and len(announced) < 20):
            raise Refusal(400, "The Content-Length header is not a number.")
        return min(int(announced), limit)
    return limit if "transfer-encoding" in request.headers else 0


async def read(request: Request, limit: int) -> bytes:
    """The body.

    Raises:
        Refusal: 413, it has more than `limit` bytes; 400, it did not come, or not in time.
    """
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(_READ_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    body += chunk
                elif size > limit + _DRAINED_BYTES:
                    break  # up to here it is read and dropped: who still sends reads no answer
                else:
                    body.clear()
    except ClientDisconnect:
        raise Refusal(400, "The body was cut off.") from None
    except TimeoutError:
        raise Refusal(400, f"The body did not come within {_READ_S:g} s.") from None
    if size > limit:
        raise too_large(limit)
    return bytes(body)


def too_large(limit: int) -> Refusal:
    """The answer to more than `limit` bytes."""
    return Refusal(
        413,
        f"The body has more than {limit / 2**20:.1f} MiB. A reference picture of 1024 pixels a "
        f"side is plenty; at most {MAX_PICTURE_BYTES // 2**20} MiB are taken.",
    )


async def read_json(request: Request, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The body as one JSON object; an empty one is `{}`.

    Args:
        request: Whose.
        limit: Bytes that it may have.

    Raises:
        Refusal: 400, it is no JSON object; 413, too large; 422, nested too deeply.
    """
    body = await read(request, limit)
    too_deep = Refusal(422, f"The body is nested more than {MAX_JSON_DEPTH} levels deep.")
    try:
        values = json.loads(body or b"{}", parse_constant=_no_constant)
    except RecursionError:
        raise too_deep from None
    except ValueError as error:  # a UnicodeDecodeError too
        raise Refusal(400, f"The body is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise Refusal(400, 'The body is not a JSON object, such as {"prompt": "...", ...}.')
    if _is_deeper(values, MAX_JSON_DEPTH):
        raise too_deep
    return values


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    if levels == 0:
        return True
    inner = value.values() if isinstance(value, dict) else value
    return any(_is_deeper(one, levels - 1) for one in inner)
