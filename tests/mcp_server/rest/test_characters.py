"""Characters over REST: saved, listed, drawn from, removed; each key has its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.doubles import FlatClient, picture
from tests.mcp_server.running import MODEL, Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]
PATH = "/api/v3/characters"


async def upload(api: Api, colour: str, **options: Any) -> str:
    files = {"file": ("fox.png", picture((64, 64), colour), "image/png")}
    uploaded = await api.ask("POST", "/api/v3/media/upload/binary", files=files, **options)
    return str(uploaded["download_url"])


async def test_a_saved_character_is_drawn_from_by_its_id(tmp_path: Path) -> None:
    client = FlatClient()
    async with serving(client, tmp_path / "data") as api:
        references = [await upload(api, colour) for colour in ("red", "blue")]
        body = {"name": " Mira ", "references": references}
        saved = await api.ask("POST", PATH, json=body)
        assert (saved["name"], saved["num_pictures"]) == ("Mira", 2)
        assert await api.ask("POST", PATH, json=body) == saved
        assert await api.ask("GET", PATH) == [saved]
        for image in (saved["id"], f"{saved['id']}/2"):
            done = await api.final((await api.submit(image=image))["id"])
        both, second = (
            [one.image.getpixel((0, 0)) for one in reference.pictures]
            for reference in client.references
        )
        assert (both, second) == ([(255, 0, 0), (0, 0, 255)], [(0, 0, 255)])
        again = await api.submit(image=f"img_{done['id']}-0")
        assert (await api.final(again["id"]))["status"] == "completed"
        assert await api.ask("DELETE", f"{PATH}/{saved['id']}") == {
            "id": saved["id"],
            "status": "deleted",
        }
        assert await api.ask("GET", PATH) == []


async def test_what_cannot_be_saved_or_found_is_told(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        two_lines = {"name": "a\nb", "references": [api.image]}
        body = await api.ask("POST", PATH, 422, json=two_lines)
        assert "`name`" in body["message"]
        no_picture = {"name": "Mira", "references": [api.image, "fox.png"]}
        body = await api.ask("POST", PATH, 422, json=no_picture)
        assert "`references.1`" in body["message"]
        await api.ask("POST", PATH, 422, json={"name": "Mira", "references": []})
        await api.ask("DELETE", f"{PATH}/chr_{'0' * 16}", 404)
        saved = await api.ask("POST", PATH, json={"name": "Mira", "references": [api.image]})
        for image in (f"chr_{'0' * 16}", f"img_{'0' * 32}-0"):
            body = await api.ask("POST", MODEL, 422, json=api.inputs(image=image))
            assert f"there is no picture or character '{image}'" in body["message"]
        body = await api.ask("POST", MODEL, 422, json=api.inputs(image=f"{saved['id']}/3"))
        assert "has 1 pictures, and no 3" in body["message"]


async def test_a_key_sees_its_own_characters_alone(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        ann, bob = await api.key("ann"), await api.key("bob")
        body = {"name": "Mira", "references": [await upload(api, "red", headers=ann)]}
        saved = await api.ask("POST", PATH, json=body, headers=ann)
        assert await api.ask("GET", PATH, headers=bob) == []
        await api.ask("DELETE", f"{PATH}/{saved['id']}", 404, headers=bob)
        inputs = api.inputs(image=saved["id"])
        await api.ask("POST", MODEL, 422, json=inputs, headers=bob)
        await api.ask("POST", MODEL, json=inputs, headers=ann)


async def test_a_character_is_renamed_and_comes_back_for_a_day_after_it_was_deleted(
    tmp_path: Path,
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        saved = await api.ask("POST", PATH, json={"name": "Mira", "references": [api.image]})
        where = f"{PATH}/{saved['id']}"
        renamed = await api.ask("PATCH", where, json={"name": " Nova "})
        assert renamed == saved | {"name": "Nova"}
        for name in ("", "a\nb", "\0"):
            assert "`name`" in (await api.ask("PATCH", where, 422, json={"name": name}))["message"]
        other = await api.ask("POST", PATH, json={"name": "Mira", "references": [api.image]})
        taken = await api.ask("PATCH", where, 422, json={"name": "Mira"})
        assert f"is {other['id']} already" in taken["message"]
        await api.ask("DELETE", where)
        assert await api.ask("GET", PATH) == [other]
        await api.ask("POST", MODEL, 422, json=api.inputs(image=saved["id"]))
        await api.ask("PATCH", where, 404, json={"name": "Nova"})
        await api.ask("DELETE", where, 404)
        assert await api.ask("POST", f"{where}/restore") == renamed
        assert {one["id"] for one in await api.ask("GET", PATH)} == {saved["id"], other["id"]}
        assert "`forever`" in (await api.ask("DELETE", f"{where}?forever=yes", 422))["message"]
        await api.ask("DELETE", f"{where}?forever=true")
        await api.ask("POST", f"{where}/restore", 404)


async def test_the_pictures_of_one_character_may_become_those_of_another(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        references = [await upload(api, colour) for colour in ("red", "blue", "green")]
        saved = await api.ask("POST", PATH, json={"name": "Mira", "references": references})
        body = {"name": "Twin", "references": [saved["id"], f"{saved['id']}/2"]}
        assert (await api.ask("POST", PATH, json=body))["num_pictures"] == 4
        many = {"name": "Many", "references": [saved["id"]] * 3}
        refused = await api.ask("POST", PATH, 422, json=many)
        assert "1..8 pictures" in refused["message"]


async def test_no_key_changes_a_character_of_another(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        ann, bob = await api.key("ann"), await api.key("bob")
        body = {"name": "Mira", "references": [await upload(api, "red", headers=ann)]}
        saved = await api.ask("POST", PATH, json=body, headers=ann)
        where = f"{PATH}/{saved['id']}"
        await api.ask("PATCH", where, 404, json={"name": "Mine"}, headers=bob)
        await api.ask("POST", f"{where}/restore", 404, headers=bob)
        await api.ask("DELETE", f"{where}?forever=true", 404, headers=bob)
        assert await api.ask("GET", PATH, headers=ann) == [saved]
