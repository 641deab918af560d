"""Finished pictures over REST: looked through, found, seen small; each key has its own."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from castmate.clients.local import LocalClient
from castmate.pipeline.pipeline import Pipeline
from tests.castmate.conftest import toon  # noqa: F401
from tests.doubles import FlatClient, picture
from tests.mcp_server.running import REFERENCE, Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]
PATH = "/api/v3/pictures"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(FlatClient(), tmp_path / "data") as api:
        yield api


async def drawn(api: Api, prompt: str, headers: Any = None, **changed: Any) -> str:
    """The id of a prediction that has ended."""
    body = api.inputs(prompt=prompt, **changed)
    path = "/api/v3/wavespeed-ai/instant-character"
    name = (await api.ask("POST", path, json=body, headers=headers))["id"]
    await api.gateway.castmate.ledger.wait(name, 20)
    return str(name)


async def found(api: Api, headers: Any = None, **query: Any) -> list[str]:
    """What is found: the names of the predictions and the numbers of their pictures."""
    page = await api.ask("GET", PATH, params=query, headers=headers)
    return [item["id"] for item in page["items"]]


async def test_a_picture_is_listed_with_all_that_a_page_shows(api: Api) -> None:
    character = await api.ask(
        "POST", "/api/v3/characters", json={"name": "Mira", "references": [api.image]}
    )
    name = await drawn(api, "waving", num_images=2, image=character["id"])
    page = await api.ask("GET", PATH)
    assert page.keys() == {"items"}
    first, second = page["items"]
    assert (first["id"], second["id"]) == (f"img_{name}-0", f"img_{name}-1")
    assert (first["seed"], second["seed"]) == (7, 8)
    assert (first["prediction_id"], first["index"], first["name"]) == (name, 0, "")
    assert first["character"] == {"id": character["id"], "name": "Mira"}
    assert (first["width"], first["height"], first["style"]) == (512, 512, "")
    assert first["input"]["prompt"] == "waving"
    assert first["input"]["image"].startswith("sha256:")
    whole = await api.http.get(urlsplit(first["url"]).path)
    assert Image.open(io.BytesIO(whole.content)).size == (512, 512)
    for small in (urlsplit(first["thumbnail_url"]).path, f"{PATH}/{first['id']}/thumbnail"):
        answer = await api.http.get(small)
        assert answer.headers["content-type"] == "image/jpeg"
        assert "immutable" in answer.headers["cache-control"]
        assert Image.open(io.BytesIO(answer.content)).size == (256, 256)
    await api.ask("GET", f"{PATH}/img_{'0' * 32}-0/thumbnail", 404)
    await api.ask("GET", f"{PATH}/x/thumbnail", 404)


async def test_pictures_are_found_by_words_name_style_character_and_date(api: Api) -> None:
    mira = await api.ask(
        "POST", "/api/v3/characters", json={"name": "Mira", "references": [api.image]}
    )
    beach = await drawn(api, "Waving on the BEACH, smiling")
    files = {"file": ("b.png", picture((64, 64), "blue"), "image/png")}
    blue = (await api.ask("POST", "/api/v3/media/upload/binary", files=files))["download_url"]
    rain = await drawn(api, "running in the rain\u3001\u732b", image=blue, style="night-ink")
    await api.ask("PATCH", f"{PATH}/img_{rain}-0", json={"name": "The Cover"})
    one, other = [f"img_{beach}-0"], [f"img_{rain}-0"]
    assert await found(api) == other + one
    for query in ("beach", "BEA", "smil wav", "the beach"):
        assert await found(api, query=query) == one, query
    for query in ("rain", "cover", "\u732b", "runn COV"):
        assert await found(api, query=query) == other, query
    for query in ("each", "be", "beach rain", "!?"):
        assert await found(api, query=query) == [], query
    assert await found(api, query="the") == other + one
    assert await found(api, style="night-ink") == other
    assert await found(api, style="night-ink", query="beach") == []
    assert await found(api, character="mira") == await found(api, character=mira["id"]) == one
    assert await found(api, since="2020-01-01", until="2100-01-01T00:00:00Z") == other + one
    assert await found(api, since="2100-01-01") == await found(api, until="2020-01-01") == []
    await api.ask("PATCH", f"{PATH}/img_{rain}-0", json={"name": "Back"})
    assert await found(api, query="cover") == []
    assert await found(api, query="back") == other
    await api.ask("DELETE", f"{PATH}/img_{rain}-0")
    assert await found(api, query="rain") == []
    await api.ask("POST", f"{PATH}/img_{rain}-0/restore")
    assert await found(api, query="rain") == other


async def test_a_name_of_one_picture_finds_no_other_of_its_prediction(api: Api) -> None:
    name = await drawn(api, "waving", num_images=3)
    await api.ask("PATCH", f"{PATH}/img_{name}-1", json={"name": "Cover"})
    assert await found(api, query="cover") == [f"img_{name}-1"]


async def test_a_character_of_several_pictures_is_found_by_any_of_them(api: Api) -> None:
    files = {"file": ("b.png", picture((64, 64), "blue"), "image/png")}
    blue = (await api.ask("POST", "/api/v3/media/upload/binary", files=files))["download_url"]
    body = {"name": "Mira", "references": [api.image, blue]}
    mira = await api.ask("POST", "/api/v3/characters", json=body)
    both = await drawn(api, "waving", image=mira["id"])
    second = await drawn(api, "running", image=f"{mira['id']}/2")
    page = await api.ask("GET", PATH, params={"character": "Mira"})
    assert [item["prediction_id"] for item in page["items"]] == [second, both]
    assert {item["character"]["id"] for item in page["items"]} == {mira["id"]}


async def test_a_file_tells_its_request_and_the_reference_that_is_still_here(api: Api) -> None:
    await drawn(api, "waving", output_format="webp", num_images=2)
    (_, second) = (await api.ask("GET", PATH))["items"]
    data = (await api.http.get(urlsplit(second["url"]).path)).content
    path = f"{PATH}/read"
    body = await api.ask("POST", path, files={"file": ("x.webp", data, "image/webp")})
    assert (body["request"]["prompt"], body["request"]["seed"]) == ("waving", 8)
    assert (body["request"]["num_images"], body["client"]) == (1, "flat")
    again = await api.submit(**body["request"] | {"image": body["image"]})
    assert (await api.final(again["id"]))["seeds"] == [8]
    plain = {"file": ("plain.png", picture((64, 64)), "image/png")}
    refused = await api.ask("POST", path, 404, files=plain)
    assert "plain.png does not say how it was drawn" in refused["message"]
    await api.ask("POST", path, 422, files={"file": ("x", b"text", "text/plain")})
    ann = await api.key("ann")
    body = await api.ask("POST", path, files={"file": ("x.webp", data, "")}, headers=ann)
    assert "image" not in body  # it is another key's


async def test_pictures_say_nothing_of_themselves_where_that_is_off(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data", picture_metadata=False) as api:
        await drawn(api, "waving")
        (item,) = (await api.ask("GET", PATH))["items"]
        data = (await api.http.get(urlsplit(item["url"]).path)).content
        await api.ask("POST", f"{PATH}/read", 404, files={"file": ("x.png", data, "image/png")})


async def test_pages_stay_exact_while_pictures_come_and_go(api: Api) -> None:
    names = [await drawn(api, f"scene {number}", num_images=2) for number in range(3)]
    expected = [f"img_{name}-{number}" for name in reversed(names) for number in (0, 1)]
    page = await api.ask("GET", PATH, params={"limit": 3})
    seen = [item["id"] for item in page["items"]]
    await drawn(api, "meanwhile")
    await api.ask("DELETE", f"{PATH}/{seen[-1]}")  # the cursor itself
    while cursor := page.get("next_cursor"):
        page = await api.ask("GET", PATH, params={"limit": 1, "cursor": cursor})
        seen += [item["id"] for item in page["items"]]
    assert seen == expected


async def test_a_wrong_query_names_its_parameter(api: Api) -> None:
    for name, value in (
        ("limit", "0"),
        ("limit", "many"),
        ("since", "yesterday"),
        ("cursor", "x"),
        ("character", "Nobody"),
        ("colour", "red"),
    ):
        body = await api.ask("GET", PATH, 422, params={name: value})
        assert f"`{name}`" in body["message"]


async def test_a_key_finds_its_own_pictures_alone(api: Api) -> None:
    ann, bob = await api.key("ann"), await api.key("bob")
    files = {"file": ("fox.png", picture((64, 64)), "image/png")}
    url = await api.ask("POST", "/api/v3/media/upload/binary", headers=ann, files=files)
    name = await drawn(api, "waving", ann, image=url["download_url"])
    assert await found(api, ann, query="waving") == [f"img_{name}-0"]
    assert await found(api, bob) == await found(api, bob, query="waving") == []
    await api.ask("GET", f"{PATH}/img_{name}-0/thumbnail", 404, headers=bob)


async def test_what_a_reference_becomes_is_shown_before_it_is_saved(
    tmp_path: Path,
    toon: Pipeline,  # noqa: F811
) -> None:
    path = "/api/v3/characters/preview"
    async with serving(LocalClient(toon), tmp_path / "data") as api:
        image = f"data:image/png;base64,{base64.b64encode(REFERENCE.read_bytes()).decode()}"
        preview = await api.ask("POST", path, json={"image": image})
        assert preview["framing"] in ("background", "alpha", "matte", "none")
        small = Image.open(io.BytesIO(base64.b64decode(preview["image"].partition(",")[2])))
        assert max(small.size) <= 512
        whole = await api.ask("POST", path, json={"image": image, "enable_matting": "false"})
        assert (whole["framing"], whole["box"]) == ("none", [0, 0, 1, 1])
        body = await api.ask("POST", path, 422, json={"image": image, "enable_matting": "maybe"})
        assert "`enable_matting`" in body["message"]
        assert await api.ask("GET", "/api/v3/characters") == []


async def test_where_nobody_here_frames_the_preview_says_what_it_leaves_out(api: Api) -> None:
    preview = await api.ask("POST", "/api/v3/characters/preview", json={"image": api.image})
    assert "without its matte graph" in preview["warnings"][0]
