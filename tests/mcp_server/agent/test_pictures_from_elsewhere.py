"""A picture reaches a server on another machine: by an address of its own, or by an upload."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2
import pytest

from castmate.errors import ImageRejected
from castmate_mcp.http import references
from tests.doubles import encoded, noise, picture
from tests.mcp_server.agent.test_streamable import RED, site

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(url: str, **options: object) -> bytes:
        raise ImageRejected("it was fetched")

    monkeypatch.setattr(references, "fetch", refuse)


async def test_a_download_url_of_an_output_or_an_upload_is_read_without_a_fetch(
    own_folder: Path, era: str
) -> None:
    async with site() as here:
        _, ann = await here.keys.create("ann")
        async with here.agent(era, ann) as agent:
            drawn = await agent.draw(image=RED)
            await agent.succeed(image=drawn["download_url"], seed=8)
            async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {ann}"}) as http:
                assert (
                    agent.drawing.references[-1].data
                    == (await http.get(drawn["download_url"])).content
                )
                form = {"file": ("fox.png", picture(colour="blue"), "image/png")}
                path = f"{here.url}/api/v3/media/upload/binary"
                sent = (await http.post(path, files=form)).json()["data"]
            await agent.succeed(image=sent["download_url"])
            assert agent.drawing.references[-1].data == picture(colour="blue")
            saved = await agent.succeed(
                "create_character", name="Fox", references=[drawn["download_url"]]
            )
            assert saved["created"]


async def test_an_address_that_has_expired_or_was_changed_is_refused(own_folder: Path) -> None:
    async with site() as here, here.agent("auto") as agent:
        drawn = await agent.draw(image=RED)
        storage = here.castmate.storage
        name = storage.verify(drawn["download_url"].removeprefix(here.url), time.time())
        assert name is not None
        old = here.url + storage.link(name, time.time() - 100, 50)
        message = await agent.fail(image=old)
        assert "that download_url has expired" in message
        assert "get_job for a new download_url" in message
        changed = drawn["download_url"].replace("/files/1", "/files/2")
        assert "it was fetched" in await agent.fail(image=changed)
        await storage.delete(name)
        assert "no longer in the storage" in await agent.fail(image=drawn["download_url"])


@pytest.mark.parametrize(
    "path", ["fox.png", "/home/ann/fox.png", "~/fox.png", "C:\\fox.png", "file:///tmp/fox.png"]
)
async def test_a_path_of_the_users_machine_leads_to_create_upload_link(
    own_folder: Path, path: str
) -> None:
    async with site() as here:
        async with here.agent("auto") as agent:
            assert "call create_upload_link" in await agent.fail(image=path)
        _, ann = await here.keys.create("ann")
        async with here.agent("auto", ann) as agent:
            message = await agent.fail(image=path)
            assert "is a path, and this server cannot see the user's files" in message
            assert "Call create_upload_link, send the file there" in message
            message = await agent.fail("create_character", name="Fox", references=[path])
            assert "`references.0`: " in message
            assert "create_upload_link" in message
            assert "create_upload_link" not in await agent.fail(image="ftp://a.example/fox.png")


async def test_a_form_of_several_megabytes_needs_no_temporary_file(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/that/could/be/written")
    large = encoded(noise((1024, 1024)))
    assert len(large) > 2 * 2**20
    async with site() as here, httpx2.AsyncClient() as http:
        _, ann = await here.keys.create("ann")
        answer = await http.post(
            f"{here.url}/api/v3/media/upload/binary",
            files={"file": ("fox.png", large, "image/png")},
            headers={"Authorization": f"Bearer {ann}"},
        )
        assert answer.status_code == 200
        url = answer.json()["data"]["download_url"]
        assert (await http.get(url)).content == large
