"""Series of pictures over REST: taken, looked at, followed, stopped and removed."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from castmate.errors import CastmateError
from castmate.schema import GenerateRequest, GenerateResult
from tests.doubles import FlatClient, SlowClient
from tests.mcp_server.rest.test_events import parsed
from tests.mcp_server.running import Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

BOARDS = "/api/v3/storyboards"
SCENES = ["waving", "reading", "asleep"]


class Unlucky(FlatClient):
    """Cannot draw one of the scenes."""

    async def generate(self, request: GenerateRequest, *args: Any, **kw: Any) -> GenerateResult:
        if "reading" in request.prompt:
            raise CastmateError("The book is missing.")
        return await super().generate(request, *args, **kw)


async def submit(api: Api, **changed: Any) -> Any:
    body = {"scenes": SCENES, "image": api.image, "size": "512*512"} | changed
    return await api.ask("POST", BOARDS, json=body)


async def ended(api: Api, name: str) -> Any:
    async with asyncio.timeout(30):
        await api.gateway.castmate.storyboards.wait(name)
    return await api.ask("GET", f"{BOARDS}/{name}")


async def test_a_series_is_taken_at_once_and_gives_every_picture_and_the_sheet(
    tmp_path: Path,
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        taken = await submit(api, seed=7, layout="sheet", num_inference_steps=3)
        assert [scene["text"] for scene in taken["scenes"]] == SCENES
        done = await ended(api, taken["id"])
        assert (done["status"], done["layout"], done["cost_usd"]) == ("completed", "sheet", 0)
        for address in (*(scene["output"] for scene in done["scenes"]), done["sheet"]):
            picture = await api.http.get(address)
            with Image.open(io.BytesIO(picture.content)) as image:
                assert image.format == "PNG"
        prediction = done["scenes"][0]["prediction_id"]
        one = await api.ask("GET", f"/api/v3/predictions/{prediction}")
        assert one["seeds"] == [7]
        assert [one["id"] for one in await api.ask("GET", BOARDS)] == [taken["id"]]


async def test_a_scene_that_fails_says_why_beside_the_others(tmp_path: Path) -> None:
    async with serving(Unlucky(), tmp_path / "data") as api:
        done = await ended(api, (await submit(api))["id"])
        assert [scene["status"] for scene in done["scenes"]] == ["completed", "failed", "completed"]
        assert done["scenes"][1]["error"] == "The book is missing."
        assert done["sheet"]
        again = await submit(api)
        assert again["id"] == done["id"]
        assert again["scenes"][0]["output"]


async def test_the_events_tell_steps_scenes_and_the_end(tmp_path: Path) -> None:
    slow = SlowClient()
    async with serving(slow, tmp_path / "data") as api:
        taken = await submit(api)
        path = f"{BOARDS}/{taken['id']}/events"
        names, scenes, last = [], [], None
        async with asyncio.timeout(30), api.http.stream("GET", path) as answer:
            async for event in parsed(answer):
                slow.may_end.set()
                names.append(event.name)
                last = event
                if event.name == "scene":
                    scenes.append(event.data["number"])
        assert names[0] == "status"
        assert "step" in names
        assert sorted(scenes) == [1, 2, 3]
        assert last
        assert (last.name, last.data["status"]) == ("end", "completed")
        answer = await api.http.get(path, headers={"last-event-id": "end"})
        assert answer.status_code == 204
        async with api.http.stream("GET", path, headers={"last-event-id": "9-3"}) as stream:
            again = [event async for event in parsed(stream)]
        assert [(event.name, event.data.get("number")) for event in again] == [
            ("scene", 3),
            ("end", None),
        ]


async def test_a_series_is_stopped_and_removed(tmp_path: Path) -> None:
    async with serving(SlowClient(), tmp_path / "data") as api:
        taken = await submit(api)
        path = f"{BOARDS}/{taken['id']}"
        refused = await api.ask("DELETE", path, 409)
        assert "/cancel" in refused["message"]
        await api.ask("POST", f"{path}/cancel")
        assert (await ended(api, taken["id"]))["status"] in ("cancelled", "failed")
        assert (await api.ask("DELETE", path))["id"] == taken["id"]
        await api.ask("GET", path, 404)


async def test_a_series_belongs_to_its_key(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        ann, bob = await api.key("ann"), await api.key("bob", concurrency=2)
        body = {"scenes": SCENES, "image": api.image, "size": "512*512"}
        taken = await api.ask("POST", BOARDS, json=body, headers=ann)
        await api.ask("GET", f"{BOARDS}/{taken['id']}", 404, headers=bob)
        assert await api.ask("GET", BOARDS, headers=bob) == []
        refused = await api.ask("POST", BOARDS, 422, json=body, headers=bob)
        assert "at most 2" in refused["message"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"scenes": []}, "a list of 1..12 texts"),
        ({"scenes": ["x"] * 13}, "a list of 1..12 texts"),
        ({"scenes": ["a", "b" * 2001]}, "text of 1..2000 characters"),
        ({"layout": "comic"}, "storyboard, sheet"),
        ({"prompt": "waving"}, "unknown parameter"),
        ({"num_images": 2}, "unknown parameter"),
    ],
)
async def test_a_wrong_series_is_refused_with_what_is_allowed(
    tmp_path: Path, changed: dict[str, Any], expected: str
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        body = {"scenes": SCENES, "image": api.image} | changed
        refused = await api.ask("POST", BOARDS, 422, json=body)
        assert expected in refused["message"]
