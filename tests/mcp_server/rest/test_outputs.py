"""Finished pictures over REST, by their ids: renamed, deleted, and restored for a day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.doubles import FlatClient
from tests.mcp_server.running import MODEL, Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]
PATH = "/api/v3/pictures"


async def drawn(api: Api, headers: dict[str, str] | None = None, **inputs: Any) -> Any:
    submitted = await api.ask("POST", MODEL, json=api.inputs(**inputs), headers=headers)
    return await api.final(submitted["id"], headers=headers)


async def test_a_deleted_picture_is_gone_alone_and_comes_back(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        done = await drawn(api, num_images=2)
        picture, result = f"img_{done['id']}-0", f"/api/v3/predictions/{done['id']}/result"
        gone = {"id": picture, "status": "deleted"}
        assert await api.ask("DELETE", f"{PATH}/{picture}") == gone
        left = (await api.ask("GET", result))["outputs"]
        assert [one.split("?")[0] for one in left] == [done["outputs"][1].split("?")[0]]
        refused = await api.ask("POST", MODEL, 422, json=api.inputs(image=picture))
        assert f"there is no picture or character '{picture}'" in refused["message"]
        await api.ask("POST", MODEL, json=api.inputs(image=f"img_{done['id']}-1"))
        back = await api.ask("POST", f"{PATH}/{picture}/restore")
        assert back["id"] == picture
        assert len((await api.ask("GET", result))["outputs"]) == 2
        await api.ask("POST", MODEL, json=api.inputs(image=picture))


async def test_a_picture_keeps_its_name_until_it_is_given_another(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        picture = f"img_{(await drawn(api))['id']}-0"
        where = f"{PATH}/{picture}"
        for name, kept in (("Cover", "Cover"), (" Back\ncover ", "Back cover")):
            named = {"id": picture, "name": kept}
            assert await api.ask("PATCH", where, json={"name": name}) == named
        for name in ("", "x" * 101):
            body = await api.ask("PATCH", where, 422, json={"name": name})
            assert "`name`" in body["message"]
        await api.ask("DELETE", where)
        assert await api.ask("POST", f"{where}/restore") == {"id": picture, "name": "Back cover"}


@pytest.mark.parametrize("name", ["img_0", "fox.png", f"img_{'0' * 32}-0", f"chr_{'0' * 16}"])
async def test_an_id_of_no_picture_is_an_address_at_which_nothing_is(
    tmp_path: Path, name: str
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        for method, path, options in (
            ("DELETE", f"{PATH}/{name}", {}),
            ("PATCH", f"{PATH}/{name}", {"json": {"name": "Cover"}}),
            ("POST", f"{PATH}/{name}/restore", {}),
        ):
            body = await api.ask(method, path, 404, **options)
            assert f"There is no picture {name!r}" in body["message"]


async def test_no_key_changes_a_picture_of_another(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        ann, bob = await api.key("ann"), await api.key("bob")
        files = {"file": ("fox.png", (await api.http.get(api.image)).content, "image/png")}
        uploaded = await api.ask("POST", "/api/v3/media/upload/binary", files=files, headers=ann)
        done = await drawn(api, ann, image=uploaded["download_url"])
        where = f"{PATH}/img_{done['id']}-0"
        await api.ask("DELETE", where, 404, headers=bob)
        await api.ask("PATCH", where, 404, json={"name": "Mine"}, headers=bob)
        await api.ask("DELETE", where, headers=ann)
        await api.ask("POST", f"{where}/restore", 404, headers=bob)
        await api.ask("POST", f"{where}/restore", headers=ann)
