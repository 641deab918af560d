"""Server-sent events: from lines of text to events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event of a prediction.

    Attributes:
        name: `status`, `step`, `preview` or `end`.
        data: What it says.
        id: Whoever comes back with it is told only what came after.
    """

    name: str
    data: dict[str, Any]
    id: str | None = None


async def parse(lines: AsyncIterable[bytes]) -> AsyncIterator[Event]:
    """The events of a stream.

    Args:
        lines: As they come, with their ends; comments and unknown fields are left out.
    """
    fields: dict[str, list[str]] = {}
    async for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text:
            name, _, value = text.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
            continue
        if "data" in fields:
            data = json.loads("\n".join(fields["data"]))
            name = fields.get("event", ["message"])[-1]
            yield Event(name, data, fields.get("id", [None])[-1])
        fields = {}
