"""Two gateways on one ledger: what one of them draws is followed at the other one."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from castmate.clients.base import Progress
from castmate.jobs.progress import WRITE_S
from castmate.schema import GenerateResult
from tests.castmate.jobs.conftest import database_url, postgres_url  # noqa: F401
from tests.doubles import FlatClient
from tests.mcp_server.rest.test_events import Event, following
from tests.mcp_server.running import Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]


class Pausing(FlatClient):
    """Draws all pictures but the last, and goes on when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
        request, reference, on_progress = args[:3]
        result = await super().generate(request, reference)
        on_progress(Progress(3, 4, images=result.images[:-1]))
        await self.go_on.wait()
        return result


@dataclass
class Two:
    """Gateways that share a ledger and a storage; only one of them draws."""

    drawing: Api
    other: Api
    client: Pausing


@pytest.fixture
async def two(tmp_path: Path, database_url: str) -> AsyncIterator[Two]:  # noqa: F811
    shared = {
        "database_url": database_url,
        "storage_url": f"file://{tmp_path / 'pictures'}",
        "files_secret": "0123456789abcdef" * 2,
    }
    client = Pausing()
    async with (
        serving(client, tmp_path / "one", **shared) as drawing,
        serving(FlatClient(), tmp_path / "two", **shared, worker_slots=0) as other,
    ):
        yield Two(drawing, other, client)


async def test_its_steps_and_previews_are_told_at_the_other_gateway(two: Two) -> None:
    job = await two.other.submit(num_images=2)
    events: list[Event] = []
    async with following(two.other, job["id"]) as stream:
        async for event in stream:
            events.append(event)
            if event.name == "step":
                two.client.go_on.set()
    names = [event.name for event in events if event.name != "status"]
    assert names[:2] == ["preview", "step"]
    assert "end" in names
    step, preview = (
        next(event.data for event in events if event.name == name) for name in ("step", "preview")
    )
    assert step == {"step": 3, "total": 4}
    assert preview["number"] == 0
    shown = Image.open(io.BytesIO(base64.b64decode(preview["image"].partition(",")[2])))
    assert max(shown.size) <= 512
    (end,) = [event.data for event in events if event.name == "end"]
    assert end["status"] == "completed"
    for output in end["outputs"]:
        path = httpx2.URL(output).path
        assert (await two.drawing.http.get(path)).content.startswith(b"\x89PNG")


async def test_whoever_waits_at_the_other_gateway_is_told_too(two: Two) -> None:
    job = await two.other.submit(num_images=2)
    seen: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        seen.append(progress)
        two.client.go_on.set()

    ledger = two.other.gateway.castmate.ledger
    async with asyncio.timeout(10 + WRITE_S):
        await ledger.wait(job["id"], on_progress=on_progress)
    assert [(one.step, one.total, len(one.images)) for one in seen] == [(3, 4, 1)]


async def test_what_is_drawn_at_once_is_not_written_down_in_between(two: Two) -> None:
    two.client.go_on.set()
    job = await two.other.submit(num_images=2)
    ledger = two.other.gateway.castmate.ledger
    seen: list[Progress] = []
    async with asyncio.timeout(10):
        await ledger.wait(job["id"], on_progress=seen.append)
    assert seen == []
    assert (await ledger.get(job["id"])).progress is None


async def test_it_is_cancelled_at_the_other_gateway(two: Two) -> None:
    job = await two.other.submit(num_images=2)
    async with following(two.other, job["id"]) as stream:
        async for event in stream:
            if event.name == "step":
                await two.other.ask("POST", f"/api/v3/predictions/{job['id']}/cancel")
            elif event.name == "end":
                assert "Cancelled" in event.data["error"]
                return
    raise AssertionError("it did not end")
