"""Pictures in a real S3 server: addresses that it signs, names that are written once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from castmate.errors import CastmateError
from castmate.jobs.storage import Storage
from tests.doubles import FlatClient
from tests.fleet.services import ACCESS, BUCKET, object_storage
from tests.mcp_server.running import serving

pytestmark = [pytest.mark.anyio, pytest.mark.fleet, pytest.mark.usefixtures("own_folder")]

URL = f"s3://{BUCKET}/pictures"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the S3 server; this process has its credentials."""
    with object_storage(tmp_path / "s3") as port:
        address = f"http://127.0.0.1:{port}"
        variables = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT": address, "AWS_ALLOW_HTTP": "true"}
        for name, value in (variables | ACCESS).items():
            monkeypatch.setenv(name, value)
        yield address


async def test_a_picture_is_fetched_from_the_bucket_by_an_address_that_it_has_signed(
    bucket: str, tmp_path: Path
) -> None:
    async with serving(FlatClient(), tmp_path / "data", storage_url=URL) as api:
        done = await api.final((await api.submit())["id"])
        (output,) = done["outputs"]
        sent_on = await api.http.get(output)
        assert sent_on.status_code == 302
        assert sent_on.headers["cache-control"] == "no-store"
        address = sent_on.headers["location"]
        assert address.startswith(f"{bucket}/{BUCKET}/pictures/outputs/")
        assert ACCESS["AWS_SECRET_ACCESS_KEY"] not in address
        async with httpx2.AsyncClient(trust_env=False) as stranger:
            assert (await stranger.get(address)).content.startswith(b"\x89PNG")
            unsigned = address.partition("?")[0]
            assert (await stranger.get(unsigned)).status_code == 403
            other = address.replace("/0.png", "/1.png")
            assert (await stranger.get(other)).status_code == 403


async def test_where_callers_cannot_reach_the_bucket_pictures_come_from_the_server(
    bucket: str, tmp_path: Path
) -> None:
    off = {"storage_url": URL, "presigned_urls": False}
    async with serving(FlatClient(), tmp_path / "data", **off) as api:
        done = await api.final((await api.submit())["id"])
        answer = await api.http.get(done["outputs"][0])
        assert answer.status_code == 200
        assert answer.content.startswith(b"\x89PNG")


async def test_a_name_is_written_once(bucket: str, tmp_path: Path) -> None:
    storage = Storage.open(URL, tmp_path)
    await storage.put("outputs/a/0.png", b"one")
    await storage.put("outputs/a/0.png", b"one")
    with pytest.raises(CastmateError, match="with other content"):
        await storage.put("outputs/a/0.png", b"two")
    assert await storage.get("outputs/a/0.png") == b"one"
