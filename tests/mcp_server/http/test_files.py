"""Files: signed addresses, parts of a file, every kind of storage."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from castmate.jobs.storage import Storage, memory_storage
from tests.doubles import FlatClient, picture
from tests.mcp_server.running import Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(FlatClient(), tmp_path / "data") as api:
        yield api


async def test_a_file_comes_whole_in_parts_or_not_again(api: Api) -> None:
    whole = await api.http.get(api.image)
    assert (whole.status_code, whole.content) == (200, picture((64, 64)))
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = await api.http.get(api.image, headers={"range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")
    same = {"range": "bytes=0-0", "if-range": whole.headers["etag"]}
    assert (await api.http.get(api.image, headers=same)).content == b"\x89"
    assert (await api.http.head(api.image)).headers["content-length"] == str(len(whole.content))
    assert (await api.http.get(api.image, headers={"range": "bytes=9999999-"})).status_code == 416


@pytest.mark.skipif(os.name != "posix", reason="needs file modes")
async def test_what_callers_send_and_get_is_for_the_servers_user_alone(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir(mode=0o700)
    before = os.umask(0)
    try:
        async with serving(FlatClient(), inside / "data") as api:
            data = await api.final((await api.submit())["id"])
            assert (await api.http.get(data["outputs"][0])).status_code == 200
    finally:
        os.umask(before)
    kept = [*(inside / "data").rglob("*"), inside / "data"]
    assert any(path.suffix == ".png" for path in kept)
    assert [path for path in kept if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


async def test_an_address_is_the_same_all_day(api: Api) -> None:
    first, second = (api.gateway.file_url(api.url, "outputs/a/0.png") for _ in range(2))
    assert first == second


async def test_an_address_that_expired_or_was_changed_is_refused(api: Api) -> None:
    storage = api.gateway.castmate.storage
    name = await written(storage)
    assert (await api.http.get(storage.link(name, time.time()))).status_code == 200
    await api.ask("GET", storage.link(name, time.time() - 120, 60), 403)
    await api.ask("GET", storage.link(name, time.time()).replace("0.png", "1.png"), 403)
    await api.ask("GET", f"/files/{name}", 403)
    await api.ask("GET", "/files/../ledger.sqlite3", 404)
    await storage.delete(name)
    await api.ask("GET", storage.link(name, time.time()), 404)


async def test_a_bucket_gives_its_files_itself(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "x" * 20)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    bucket = Storage.open("s3://bucket/castmate", Path("data"))
    monkeypatch.setattr(api.gateway.castmate, "storage", bucket)
    answer = await api.http.get(bucket.link("outputs/a/0.png", time.time()))
    assert answer.status_code == 302
    assert "/castmate/outputs/a/0.png?" in answer.headers["location"]
    assert "X-Amz-Signature" in answer.headers["location"]


async def test_a_storage_that_is_neither_is_read_for_the_caller(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = memory_storage()
    monkeypatch.setattr(api.gateway.castmate, "storage", memory)
    name = await written(memory)
    assert (await api.http.get(memory.link(name, time.time()))).content == picture()
    await api.ask("GET", memory.link("outputs/b/0.png", time.time()), 404)


async def written(storage: Storage) -> str:
    await storage.put("outputs/a/0.png", picture())
    return "outputs/a/0.png"
