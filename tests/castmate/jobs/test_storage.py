"""Objects that nobody overwrites, and addresses that expire."""

from __future__ import annotations

import asyncio
import io
import os
import stat
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from obstore.store import S3Store
from PIL import Image

from castmate.errors import CastmateError, SettingsError
from castmate.jobs.database import Durability
from castmate.jobs.storage import Storage, memory_storage, output_name
from tests.castmate.jobs.conftest import NOON
from tests.doubles import picture

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["folder", "memory", "power"])
def any_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "memory":
        return memory_storage()
    durability = Durability.POWER if request.param == "power" else Durability.PROCESS
    return Storage.open(None, tmp_path, durability=durability)


async def test_what_was_written_is_read_and_gone_after_its_removal(any_storage: Storage) -> None:
    await any_storage.put("outputs/a-1/0.png", b"picture")
    assert await any_storage.get("outputs/a-1/0.png") == b"picture"
    await any_storage.delete("outputs/a-1/0.png")
    assert not await any_storage.exists("outputs/a-1/0.png")
    await any_storage.delete("outputs/a-1/0.png")
    with pytest.raises(FileNotFoundError):
        await any_storage.get("outputs/a-1/0.png")


async def test_a_name_is_never_given_to_something_else(any_storage: Storage) -> None:
    await any_storage.put("a", b"first")
    await any_storage.put("a", b"first")
    with pytest.raises(CastmateError, match="other content"):
        await any_storage.put("a", b"second")
    assert await any_storage.get("a") == b"first"


async def test_of_many_who_write_one_name_at_once_one_wins(any_storage: Storage) -> None:
    writes = [any_storage.put("a", bytes([number]) * 1000) for number in range(20)]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert answers.count(None) == 1
    assert await any_storage.get("a") == bytes([answers.index(None)]) * 1000


async def test_everything_below_a_prefix_is_listed(any_storage: Storage) -> None:
    for name in ("outputs/a", "outputs/b/c", "inputs/d"):
        await any_storage.put(name, b"12")
    found = [item async for chunk in any_storage.list("outputs") for item in chunk]
    assert {(item.name, item.num_bytes) for item in found} == {("outputs/a", 2), ("outputs/b/c", 2)}


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/passwd", "a//b"])
async def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    storage = Storage.open(None, tmp_path)
    with pytest.raises(FileNotFoundError):
        await storage.get(name)


async def test_a_preview_is_a_small_jpeg_made_once(storage: Storage) -> None:
    name = output_name("ab" * 16, 1, 0, "png")
    await storage.put(name, picture((1024, 768)))
    previews = await asyncio.gather(*(storage.preview(name) for _ in range(5)))
    assert len(set(previews)) == 1
    with Image.open(io.BytesIO(previews[0])) as image:
        assert (image.format, image.size) == ("JPEG", (512, 384))
    await storage.delete(name)  # the second time nothing is read but the preview
    assert await storage.preview(name) == previews[0]
    with pytest.raises(FileNotFoundError):
        await storage.preview("outputs/none/0.png")


async def test_a_signed_address_works_until_it_expires_and_for_this_file_alone(
    storage: Storage,
) -> None:
    path = storage.signed_url("outputs/a b/0.png", NOON, expires_in_s=60)
    assert path.endswith("/outputs/a%20b/0.png")
    assert storage.verify(path, NOON + 60) == "outputs/a b/0.png"
    assert storage.verify(path, NOON + 61) is None
    assert storage.verify(path.replace("0.png", "1.png"), NOON) is None
    assert storage.verify(path.replace(f"/{NOON + 60:.0f}-", f"/{NOON + 61:.0f}-"), NOON) is None
    signature = path.split("-")[1].split("/")[0]
    assert storage.verify(path.replace(signature, signature[::-1]), NOON) is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/files/",
        "/files/outputs/0.png",
        f"/files/-1-{'0' * 64}/a",
        f"/files/1e9-{'0' * 64}/a",
        f"/files/٣-{'0' * 64}/a",
        f"/files/{'9' * 5000}-{'0' * 64}/a",
        f"/files/2000000000-{'0' * 64}/a",
        "/files/2000000000-" + "ü" * 64 + "/a",
    ],
)
async def test_a_nonsense_address_is_refused(storage: Storage, path: str) -> None:
    assert storage.verify(path, NOON) is None


async def test_a_signature_for_one_purpose_is_none_for_another(storage: Storage) -> None:
    assert storage.sign("upload", "a") != storage.sign("webhook", "a")
    assert storage.sign("upload", "a") == storage.sign("upload", "a")


async def test_processes_that_share_the_data_folder_or_a_secret_accept_each_others_addresses(
    tmp_path: Path,
) -> None:
    def accepts(one: Storage, other: Storage) -> bool:
        return other.verify(one.signed_url("a", NOON), NOON) == "a"

    here = Storage.open(None, tmp_path / "a")
    assert accepts(here, Storage.open(None, tmp_path / "a"))
    assert not accepts(here, Storage.open(None, tmp_path / "b"))
    shared = [Storage.open(None, tmp_path / name, secret="s" * 16) for name in "cd"]
    assert accepts(*shared)
    mode = stat.S_IMODE((tmp_path / "a/files.secret").stat().st_mode)
    assert mode == 0o600


async def test_a_bucket_signs_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    storage = Storage.open("s3://pictures/castmate", tmp_path)
    assert isinstance(storage._store, S3Store)
    url = urlsplit(storage.signed_url("outputs/a/0.png", NOON, expires_in_s=60))
    assert url.path.endswith("/castmate/outputs/a/0.png")
    assert parse_qs(url.query)["X-Amz-Expires"] == ["60"]


@pytest.mark.parametrize("url", ["nothing", "ftp://host/a", "s3://"])
async def test_a_wrong_storage_is_told_with_its_variable(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match=r"CASTMATE_STORAGE_URL: .*s3://bucket/prefix or file:"):
        Storage.open(url, tmp_path)


async def test_a_folder_that_cannot_be_written_is_told_with_its_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match="CASTMATE_STORAGE_URL"):
        Storage.open(f"file://{tmp_path / 'file' / 'below'}", tmp_path)


async def test_power_durability_flushes_the_file_and_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    flush = os.fsync

    def record(handle: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{handle}"))
        flush(handle)

    storage = Storage.open(None, tmp_path, durability=Durability.POWER)
    monkeypatch.setattr(os, "fsync", record)
    await storage.put("outputs/a-1/0.png", b"x")
    below = tmp_path / "files/outputs"
    assert flushed == [str(below / "a-1/0.png"), str(below / "a-1"), str(below)]
    await Storage.open(None, tmp_path).put("outputs/a-2/0.png", b"x")
    assert len(flushed) == 3
