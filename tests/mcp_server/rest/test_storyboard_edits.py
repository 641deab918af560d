"""A series is edited over REST: a scene drawn again, another order, one file to take away."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.doubles import FlatClient, StuckClient
from tests.mcp_server.rest.test_storyboards import BOARDS, SCENES, Unlucky, ended, submit
from tests.mcp_server.running import Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(FlatClient(), tmp_path / "data") as api:
        yield api


async def drawn(api: Api, **changed: Any) -> Any:
    return await ended(api, (await submit(api, **changed))["id"])


async def test_a_scene_is_drawn_again_and_the_others_stay(api: Api) -> None:
    done = await drawn(api, seed=7)
    path = f"{BOARDS}/{done['id']}/scenes/2/redraw"
    key = {"idempotency-key": "again"}
    await api.ask("POST", path, json={}, headers=key)
    again = await ended(api, done["id"])
    assert again["scenes"][0] == done["scenes"][0]
    assert again["scenes"][1]["text"] == SCENES[1]
    assert again["scenes"][1]["prediction_id"] != done["scenes"][1]["prediction_id"]
    assert again["scenes"][1]["seed"] != 7
    assert again["sheet"] != done["sheet"]
    await api.ask("POST", path, json={}, headers=key)  # as a client that heard no answer
    assert await ended(api, done["id"]) == again
    await api.ask("POST", path, json={"seed": 9, "text": "sailing"})
    last = (await ended(api, done["id"]))["scenes"][1]
    assert (last["seed"], last["text"]) == (9, "sailing")
    pictures = await api.ask("GET", "/api/v3/pictures")
    assert len(pictures["items"]) == 5  # what is drawn again is still among one's pictures
    assert pictures["items"][0]["input"]["prompt"] == "sailing"


async def test_the_scenes_get_another_order(api: Api) -> None:
    done = await drawn(api)
    path = f"{BOARDS}/{done['id']}"
    body = await api.ask("PATCH", path, json={"order": [3, 1, 2]})
    assert [one["text"] for one in body["scenes"]] == [SCENES[2], SCENES[0], SCENES[1]]
    before = {one["text"]: one["prediction_id"] for one in done["scenes"]}
    assert {one["text"]: one["prediction_id"] for one in body["scenes"]} == before
    assert [one["number"] for one in body["scenes"]] == [1, 2, 3]
    for order in ([1, 2], [1, 2, 2], [1, 2, 4], []):
        refused = await api.ask("PATCH", path, 422, json={"order": order})
        assert "`order`" in refused["message"]
    await api.ask("PATCH", f"{BOARDS}/nope", 404, json={"order": [1]})


async def test_a_scene_that_failed_is_drawn_with_the_words_that_it_has_now(tmp_path: Path) -> None:
    async with serving(Unlucky(), tmp_path / "data") as api:
        done = await drawn(api, seed=7)
        await api.ask("PATCH", f"{BOARDS}/{done['id']}", json={"order": [2, 1, 3]})
        again = await drawn(api, seed=7)
        assert again["id"] == done["id"]
        assert [one["status"] for one in again["scenes"]] == ["failed", "completed", "completed"]
        path = f"{BOARDS}/{done['id']}/scenes/1/redraw"
        await api.ask("POST", path, json={"text": "sleeping", "seed": 3})
        assert (await ended(api, done["id"]))["scenes"][0]["status"] == "completed"


async def test_what_cannot_be_drawn_again_says_why(tmp_path: Path) -> None:
    async with serving(StuckClient(), tmp_path / "data") as api:
        taken = await submit(api)
        path = f"{BOARDS}/{taken['id']}"
        refused = await api.ask("POST", f"{path}/scenes/1/redraw", 422, json={})
        assert "cancel prediction" in refused["message"]
        missing = await api.ask("POST", f"{path}/scenes/4/redraw", 404, json={})
        assert "only 1, 2, 3" in missing["message"]
        await api.ask("POST", f"{path}/scenes/1/redraw", 422, json={"seed": "x"})
        assert "still being drawn" in (await api.ask("GET", f"{path}/export", 409))["message"]
        await api.ask("POST", f"{path}/cancel")
        await ended(api, taken["id"])
        assert "no picture" in (await api.ask("GET", f"{path}/export", 409))["message"]
        wrong = await api.ask("GET", f"{path}/export", 422, params={"format": "gif"})
        assert "allowed: png, pdf, zip" in wrong["message"]


async def test_a_series_is_taken_away_as_a_sheet_a_document_or_an_archive(tmp_path: Path) -> None:
    async with serving(Unlucky(), tmp_path / "data") as api:
        done = await drawn(api)
        answers = {}
        for name, kind in (
            ("png", "image/png"),
            ("pdf", "application/pdf"),
            ("zip", "application/zip"),
        ):
            path = f"{BOARDS}/{done['id']}/export?format={name}"
            answer = await api.http.get(path)
            assert answer.headers["content-type"] == kind
            body = f'attachment; filename="storyboard-{done["id"]}.{name}"'
            assert answer.headers["content-disposition"] == body
            assert (await api.http.get(path)).content == answer.content
            answers[name] = answer.content
        sheet = (await api.http.get(done["sheet"])).content
        assert answers["png"] == sheet
        assert answers["pdf"].startswith(b"%PDF")
        assert answers["pdf"].count(b"/MediaBox") == 3  # the scene that failed has a page, too
        with zipfile.ZipFile(io.BytesIO(answers["zip"])) as made:
            assert made.testzip() is None
            names = ["scene-01.png", "scene-03.png", "sheet.png", "storyboard.json"]
            assert made.namelist() == names
            assert made.read("sheet.png") == sheet
            with Image.open(io.BytesIO(made.read("scene-03.png"))) as image:
                assert image.size == (512, 512)
            body = json.loads(made.read("storyboard.json"))
            assert body["scenes"] == SCENES
            assert body["image"].startswith("sha256:")


async def test_another_key_edits_and_takes_nothing(api: Api) -> None:
    ann, bob = await api.key("ann"), await api.key("bob")
    body = {"scenes": SCENES, "image": api.image, "size": "512*512"}
    path = f"{BOARDS}/{(await api.ask('POST', BOARDS, json=body, headers=ann))['id']}"
    await api.ask("GET", f"{path}/export", 404, headers=bob)
    await api.ask("PATCH", path, 404, json={"order": [1, 2, 3]}, headers=bob)
    await api.ask("POST", f"{path}/scenes/1/redraw", 404, json={}, headers=bob)
