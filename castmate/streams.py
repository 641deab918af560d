"""Reads bytes from stdin and from a shell's pipes: `-`, /dev/stdin, `<(...)`."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import sys
from typing import Final

_DESCRIPTOR: Final = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,6})")


def is_stream(source: str) -> bool:
    """Whether this names an open file of this process rather than a file on disk."""
    return source in ("-", "/dev/stdin") or _DESCRIPTOR.fullmatch(source) is not None


async def read(source: str, limit: int) -> bytes:
    """Read to the end, or to `limit` bytes.

    Raises:
        OSError: It is not open or cannot be read.
        ValueError: It is a terminal or a device, which might never end.
    """
    match = _DESCRIPTOR.fullmatch(source)
    descriptor = int(match[1]) if match else sys.stdin.fileno()
    with open(os.dup(descriptor), "rb", buffering=0) as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if stat.S_ISREG(mode):
            return await asyncio.to_thread(stream.read, limit)
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise ValueError("it is neither a pipe nor a file")
        return await _read_pipe(stream.fileno(), limit)


async def _read_pipe(descriptor: int, limit: int) -> bytes:
    """Read a pipe without blocking a thread, so that Ctrl-C ends the wait."""
    was_blocking = os.get_blocking(descriptor)
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(descriptor), "rb")
    )
    try:
        body = bytearray()
        while len(body) < limit and (chunk := await reader.read(limit - len(body))):
            body += chunk
        return bytes(body)
    finally:
        transport.close()
        os.set_blocking(descriptor, was_blocking)
