"""What callers of the server read of a prediction that waits, expires or cannot be stored."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from castmate.errors import BundleCorrupt, Unavailable
from castmate.jobs.storage import DAY_S, OUTPUTS
from castmate_mcp.http.envelope import without_paths
from tests.doubles import FlatClient
from tests.fakes.paid import PaidClient
from tests.mcp_server.running import serving

pytestmark = pytest.mark.anyio


class Repaired(FlatClient):
    """Cannot draw until somebody repairs it."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = Unavailable("No model in /srv/models/toon/bundle.json.")

    async def generate(self, *args: Any, **kwargs: Any) -> Any:
        if self.error is not None:
            raise self.error
        return await super().generate(*args, **kwargs)


async def test_a_waiting_prediction_keeps_its_status_and_says_what_it_waits_for(
    tmp_path: Path,
) -> None:
    client = Repaired()
    async with serving(client, tmp_path / "data") as api:
        name = (await api.submit())["id"]
        path = f"/api/v3/predictions/{name}/result"
        async with asyncio.timeout(10):
            while "waiting_for" not in (data := await api.ask("GET", path)):
                await asyncio.sleep(0.01)
        assert data["status"] == "created"
        assert data["error"] == ""
        assert data["waiting_for"] == "No model in bundle.json."
        client.error = None
        data = await api.final(name)
        assert data["status"] == "completed"
        assert "waiting_for" not in data


async def test_a_drawn_picture_is_kept_while_its_folder_is_away(tmp_path: Path) -> None:
    folder, away = tmp_path / "data/files", tmp_path / "away"

    class Absent(FlatClient):
        """Draws while the folder disappears."""

        async def generate(self, *args: Any, **kwargs: Any) -> Any:
            result = await super().generate(*args, **kwargs)
            folder.rename(away)
            asyncio.get_running_loop().call_later(1, away.rename, folder)
            return result

    client = Absent()
    async with serving(client, tmp_path / "data") as api:
        data = await api.final((await api.submit())["id"])
        assert data["status"] == "completed"
        assert len(client.requests) == 1, "it is not drawn again"
        assert (await api.http.get(data["outputs"][0])).status_code == 200


async def test_a_paid_picture_that_can_never_be_stored_fails_and_says_what_was_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("castmate.jobs.worker._IMPATIENT_S", 1.0)
    async with serving(PaidClient(), tmp_path / "data", wait_s=1) as api:
        storage = api.gateway.castmate.storage
        put, tries = storage.put, 0

        async def full(name: str, data: bytes) -> None:
            nonlocal tries
            if not name.startswith(OUTPUTS):
                return await put(name, data)
            tries += 1
            raise Unavailable("The storage failed: No space left on device.")

        monkeypatch.setattr(storage, "put", full)
        data = await api.final((await api.submit())["id"])
        assert (data["status"], tries > 1) == ("failed", True)
        assert "The picture was drawn and $0.10 was paid for it" in data["error"]
        assert "No space left on device" in data["error"]


async def test_results_say_when_they_expire_where_they_do(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data", retention_days=7) as api:
        first = await api.submit()
        assert "expires_at" not in first
        data = await api.final(first["id"])
        assert data["expires_at"].endswith("Z")
        found = await api.gateway.castmate.ledger.get(first["id"])
        assert found.finished is not None
        assert found.expires == found.finished + 7 * DAY_S
    async with serving(FlatClient(), tmp_path / "other") as api:
        assert "expires_at" not in await api.final((await api.submit())["id"])


async def test_callers_see_no_folder_of_the_server(tmp_path: Path) -> None:
    error = BundleCorrupt("/home/ann/.local/share/castmate/toon/vae.onnx was changed.")
    async with serving(FlatClient(error), tmp_path / "data") as api:
        data = await api.final((await api.submit())["id"])
        assert data["error"] == "vae.onnx was changed."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The ledger /var/lib/castmate/ledger.sqlite3 is full.", "The ledger ledger.sqlite3 is"),
        (r"C:\Users\ann\data\x.png: no space", "x.png: no space"),
        ("Ask https://api.wavespeed.ai/api/v3/models or GET /api/v3/models.", None),
        ("1024*1024, image/png, outputs/abc-1/0.png, and/or", None),
    ],
)
def test_only_paths_of_the_machine_are_shortened(text: str, expected: str | None) -> None:
    assert without_paths(text).startswith(expected or text)


async def test_a_server_that_cannot_store_pictures_is_not_ready(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        assert (await api.http.get("/readyz")).status_code == 200
        folder = tmp_path / "data/files"
        shutil.move(folder, tmp_path / "away")
        answer = await api.http.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "no storage")
        assert str(tmp_path) not in answer.text
        shutil.move(tmp_path / "away", folder)
        assert (await api.http.get("/readyz")).status_code == 200


async def test_a_server_whose_disk_is_full_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with serving(FlatClient(), tmp_path / "data") as api:
        with monkeypatch.context() as disk:
            disk.setattr(Path, "write_bytes", full)
            answer = await api.http.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "no storage")
        assert "No space left on device" in answer.json()["reason"]
        assert (await api.http.get("/readyz")).status_code == 200
