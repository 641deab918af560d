"""Callers of a fleet: they submit, look, and try again as WaveSpeed's clients should."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.fleet.receiver import HOOK

MODEL = "/api/v3/wavespeed-ai/instant-character"
PATIENCE_S = 120.0


@dataclass
class Seen:
    """What callers saw.

    Attributes:
        statuses: Answers by HTTP status.
        unlike: 5xx answers that are not a 503 with Retry-After.
        refused: Connections that could not be made or broke.
        asked: When each prediction was first asked for, on the monotonic clock.
        acknowledged: When it was taken, likewise.
        completed: When its caller saw it completed.
        ended: The status of each at its end.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    unlike: list[str] = field(default_factory=list)
    refused: int = 0
    asked: dict[str, float] = field(default_factory=dict)
    acknowledged: dict[str, float] = field(default_factory=dict)
    completed: dict[str, float] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)

    def slowest_s(self, begin: float, end: float) -> tuple[float, float]:
        """What callers waited for whose predictions were not finished at some time of a span.

        Returns:
            The longest time until one was acknowledged, and from there until it was drawn.
        """
        met = [
            name for name, at in self.asked.items() if at < end and self.completed[name] >= begin
        ]
        taken = (self.acknowledged[name] - self.asked[name] for name in met)
        drawn = (self.completed[name] - self.acknowledged[name] for name in met)
        return max(taken, default=0.0), max(drawn, default=0.0)


class Caller:
    """One key; every request has a connection of its own, so any gateway may answer it."""

    def __init__(self, http: httpx2.AsyncClient, url: str, secret: str, seen: Seen) -> None:
        self._http, self._url, self._seen = http, url, seen
        self._headers = {"Authorization": f"Bearer {secret}", "Connection": "close"}
        self._last = ""

    async def ask(self, method: str, path: str, **options: Any) -> Any:
        """The `data` of an answer, or the whole of one that is no JSON.

        It is asked for again while the fleet says so or cannot be reached.
        """
        self._last = "nothing was answered"
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (answer := await self._once(method, path, **options)) is None:
                    pass
        except TimeoutError:
            raise AssertionError(f"{method} {path}: {self._last}") from None
        assert answer.status_code == 200, answer.text
        return answer.json()["data"] if "json" in answer.headers["content-type"] else answer

    async def _once(self, method: str, path: str, **options: Any) -> httpx2.Response | None:
        """An answer; None, after a while, where it is to be asked for again."""
        headers = self._headers | options.pop("headers", {})
        try:
            answer = await self._http.request(method, self._url + path, headers=headers, **options)
        except httpx2.HTTPError as error:
            self._seen.refused += 1
            self._last = repr(error)
            await asyncio.sleep(0.2)
            return None
        self._seen.statuses[answer.status_code] += 1
        self._last = f"{answer.status_code}: {answer.text[:300]}"
        after = answer.headers.get("retry-after")
        if answer.status_code < 500 and answer.status_code != 429:
            return answer
        if answer.status_code not in (429, 503) or not after:
            self._seen.unlike.append(self._last)
        await asyncio.sleep(float(after or 0.5))
        return None

    async def draw(self, image: str, seed: int) -> None:
        """Submit one prediction and follow it to its end, with its picture."""
        body = {"image": image, "prompt": "waving on the beach", "size": "512*512", "seed": seed}
        body |= {"num_inference_steps": 4, "enable_safety_checker": False}
        key = {"Idempotency-Key": f"fleet-{seed}"}
        asked = time.monotonic()
        data = await self.ask("POST", f"{MODEL}?webhook={HOOK}", json=body, headers=key)
        name = data["id"]
        self._seen.asked[name] = asked
        self._seen.acknowledged[name] = time.monotonic()
        while data["status"] in ("created", "processing"):
            await asyncio.sleep(0.5)
            data = await self.ask("GET", f"/api/v3/predictions/{name}/result")
        self._seen.completed[name] = time.monotonic()
        self._seen.ended[data["status"]] += 1
        if data["status"] == "completed":
            path = data["outputs"][0].removeprefix(self._url)
            assert (await self.ask("GET", path)).content.startswith(b"\x89PNG")
