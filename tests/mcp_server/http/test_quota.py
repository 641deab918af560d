"""What callers send takes disk once, within a quota, and memory within a bound."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pillow_heif
import pytest
from PIL import Image

from benchmarks.server_process import castmate_serve, create_key
from tests.doubles import FlatClient, encoded, noise, picture
from tests.mcp_server.http.test_shares import MODERN, ask_tool, call, result_of
from tests.mcp_server.running import MODEL, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def test_an_upload_that_many_calls_use_is_stored_once(tmp_path: Path) -> None:
    data = encoded(noise((400, 400)))
    async with serving(FlatClient(), tmp_path / "data", with_mcp=True, worker_slots=0) as api:
        ann = await api.key("ann")
        upload = result_of(await ask_tool(api, ann, "create_upload_link"))["structuredContent"]
        before = disk_bytes(tmp_path / "data/files")
        assert (await api.http.put(upload["upload_url"], content=data)).status_code == 200
        for number in range(6):
            answer = await ask_tool(
                api, ann, "create_character", name=f"Fox {number}", references=[upload["image"]] * 8
            )
            assert not result_of(answer).get("isError"), answer.text
        form = {"file": ("fox.png", data, "image/png")}
        again = await api.ask("POST", "/api/v3/media/upload/binary", files=form, headers=ann)
        inputs = api.inputs(image=again["download_url"])
        await api.ask("POST", MODEL, json=inputs, headers=ann)
        assert disk_bytes(tmp_path / "data/files") - before == len(data)
        got = await api.http.get(again["download_url"])
        assert got.content == data


async def test_a_key_beyond_its_quota_is_told_on_every_door(tmp_path: Path) -> None:
    data = encoded(noise((500, 500)))
    assert 700_000 < len(data) < 2**20
    async with serving(
        FlatClient(), tmp_path / "data", with_mcp=True, worker_slots=0, stored_mb_per_key=1
    ) as api:
        ann, bob = await api.key("ann"), await api.key("bob")
        first = {"file": ("fox.png", data, "image/png")}
        await api.ask("POST", "/api/v3/media/upload/binary", files=first, headers=ann)
        await api.ask("POST", "/api/v3/media/upload/binary", files=first, headers=ann)
        other = encoded(noise((501, 501)))
        second = {"file": ("fox.png", other, "image/png")}
        body = await api.ask("POST", "/api/v3/media/upload/binary", 413, files=second, headers=ann)
        assert "Key 'ann' keeps 0.7 MiB of pictures on this server, and may keep 1" in body["error"]
        assert body["reason"] == "quota_exceeded"
        asked = {"filename": "fox.png", "size": len(other), "content_type": "image/png"}
        ticket = await api.ask("POST", "/api/v3/media/uploads", json=asked, headers=ann)
        sent = await api.http.put(ticket["upload"]["url"], content=other)
        assert (sent.status_code, sent.json()["reason"]) == (413, "quota_exceeded")
        await api.ask("POST", "/api/v3/media/upload/binary", files=second, headers=bob)


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
async def test_pictures_of_phones_are_uploaded_and_drawn_from(tmp_path: Path, form: str) -> None:
    pillow_heif.register_heif_opener()
    async with serving(FlatClient(), tmp_path / "data") as api:
        files = {"file": ("IMG_1.heic", picture(format=form), f"image/{form.lower()}")}
        uploaded = await api.ask("POST", "/api/v3/media/upload/binary", files=files)
        inputs = api.inputs(image=uploaded["download_url"], enable_sync_mode=True)
        assert (await api.ask("POST", MODEL, json=inputs))["status"] == "completed"


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_characters_of_many_large_pictures_stay_within_a_bound_of_memory(
    tmp_path: Path,
) -> None:
    large = [
        encoded(Image.new("RGBA", (5000, 4000), f"#{20 * number:02x}0000")) for number in range(8)
    ]
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    ann = {"authorization": f"Bearer {create_key(data_dir, 'ann')}"}
    with castmate_serve(data_dir) as server:
        async with httpx2.AsyncClient(base_url=server.url, timeout=120, trust_env=False) as http:
            sources = [await _as_upload(http, ann, data) for data in large]
            before = _peak_mib(server.pid)

            async def create(number: int) -> dict[str, Any]:
                named = MODERN | {"mcp-method": "tools/call", "mcp-name": "create_character"}
                message = call("create_character", name=f"Fox {number}", references=sources)
                answer = await http.post("/mcp", json=message, headers=ann | named)
                return result_of(answer)

            async with asyncio.timeout(150):
                made = await asyncio.gather(*(create(number) for number in range(2)))
            assert [one.get("isError", False) for one in made] == [False] * 2, made
            assert _peak_mib(server.pid) - before < 600


async def _as_upload(http: httpx2.AsyncClient, key: dict[str, str], data: bytes) -> str:
    named = MODERN | {"mcp-method": "tools/call", "mcp-name": "create_upload_link"}
    answer = await http.post("/mcp", json=call("create_upload_link"), headers=key | named)
    link = result_of(answer)["structuredContent"]
    assert (await http.put(link["upload_url"], content=data)).status_code == 200
    return str(link["image"])


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024
