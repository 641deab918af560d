"""Submitting: sync mode, base64, idempotency, callers who hang up."""

from __future__ import annotations

import asyncio
import base64
import io
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from castmate.schema import GenerateResult
from tests.doubles import FlatClient, StuckClient
from tests.mcp_server.running import MODEL, Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]


class HeldClient(FlatClient):
    """Draws once it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()

    async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
        await self.let_go.wait()
        return await super().generate(*args, **kwargs)


async def test_sync_mode_answers_with_the_pictures(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        data = await api.submit(enable_sync_mode=True, num_images=2)
        assert (data["status"], len(data["outputs"])) == ("completed", 2)


async def test_the_answer_says_how_the_reference_was_framed(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        submitted = await api.submit()
        assert "reference" not in submitted
        done = await api.final(submitted["id"])
        assert done["reference"] == {
            "framing": "alpha",
            "box": [0.25, 0.0, 0.75, 1.0],
            "others": [],
        }


async def test_at_the_cap_the_prediction_goes_on_and_its_id_is_told(tmp_path: Path) -> None:
    client = HeldClient()
    async with serving(client, tmp_path / "data", {"sync_cap_s": 0.1}) as api:
        data = await api.submit(enable_sync_mode=True)
        assert (data["status"], data["code"]) == ("processing", 5004)
        assert "Sync mode timed out" in data["error"]
        client.let_go.set()
        assert (await api.final(data["id"]))["status"] == "completed"


@pytest.mark.parametrize("sync", [True, False])
async def test_base64_output_is_bare_whether_polled_or_waited_for(
    tmp_path: Path, sync: bool
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        data = await api.submit(enable_base64_output=True, enable_sync_mode=sync)
        (output,) = (await api.final(data["id"]))["outputs"]
        assert not sync or data["outputs"] == [output]
        with Image.open(io.BytesIO(base64.b64decode(output, validate=True))) as image:
            assert image.size == (512, 512)


async def test_a_caller_who_hangs_up_and_asks_again_gets_the_same_prediction(
    tmp_path: Path,
) -> None:
    client = HeldClient()
    async with serving(client, tmp_path / "data") as api:
        inputs = api.inputs(seed=-1, enable_sync_mode=True)
        with pytest.raises(httpx2.ReadTimeout):
            await api.http.post(MODEL, json=inputs, timeout=0.5)
        async with asyncio.timeout(10):
            while not api.gateway.abandoned.found:
                await asyncio.sleep(0.01)
        again = asyncio.create_task(api.ask("POST", MODEL, json=inputs))
        async with asyncio.timeout(10):
            while api.gateway.abandoned.found:
                await asyncio.sleep(0.01)
        client.let_go.set()
        assert (await again)["status"] == "completed"
        assert len(client.requests) == 1
        assert (await api.ask("POST", MODEL, json=inputs))["status"] == "completed"
        assert len(client.requests) == 2  # who got an answer and asks again wants another picture


async def test_two_who_wait_side_by_side_get_a_picture_each(tmp_path: Path) -> None:
    client = FlatClient()
    async with serving(client, tmp_path / "data") as api:
        asked = [api.submit(seed=-1, enable_sync_mode=True) for _ in range(2)]
        first, second = await asyncio.gather(*asked)
        assert first["id"] != second["id"]


async def test_a_caller_who_hangs_up_loses_nothing(tmp_path: Path) -> None:
    client = HeldClient()
    async with serving(client, tmp_path / "data") as api:
        with pytest.raises(httpx2.ReadTimeout):
            await api.http.post(MODEL, json=api.inputs(enable_sync_mode=True), timeout=0.5)
        client.let_go.set()
        (item,) = (await api.ask("POST", "/api/v3/predictions", json={}))["items"]
        assert (await api.final(item["id"]))["status"] == "completed"


async def test_an_idempotency_key_stands_for_one_prediction(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        headers = {"idempotency-key": "again"}
        first = await api.ask("POST", MODEL, json=api.inputs(), headers=headers)
        again = await api.ask("POST", MODEL, json=api.inputs(), headers=headers)
        assert first["id"] == again["id"]
        other = await api.ask("POST", MODEL, 409, json=api.inputs(seed=8), headers=headers)
        assert first["id"] in other["message"]
        long = {"idempotency-key": "x" * 256}
        await api.ask("POST", MODEL, 422, json=api.inputs(), headers=long)


@pytest.mark.parametrize("flag", ["enable_sync_mode", "enable_base64_output"])
async def test_a_webhook_goes_with_neither_sync_mode_nor_base64(tmp_path: Path, flag: str) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        query = {"webhook": "https://example.com/done"}
        body = await api.ask("POST", MODEL, 400, json=api.inputs(**{flag: True}), params=query)
        assert flag in body["message"]


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "not a JSON object"),
        (b'{"seed": NaN}', 400, "NaN"),
        (b"\xff\xfe", 400, "not JSON"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, 422, "16 levels"),
        (b"[" * 100_000, 422, "16 levels"),
        (b'{"seed":' + b"9" * 5000 + b"}", 400, "not JSON"),
        (b"", 422, "`prompt`: is required"),
        (b'{"prompt": "a", "image": "https://a", "promt": 1}', 422, "did you mean `prompt`"),
    ],
)
async def test_a_body_that_cannot_be_used_is_told_why(
    tmp_path: Path, body: bytes, status: int, expected: str
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        answer = await api.ask("POST", MODEL, status, content=body)
        assert expected in answer["message"]


async def test_a_cancelled_prediction_stops_and_a_finished_one_can_be_removed(
    tmp_path: Path,
) -> None:
    client = StuckClient()
    async with serving(client, tmp_path / "data") as api:
        name = (await api.submit())["id"]
        async with asyncio.timeout(10):
            await client.started.wait()
        await api.ask("DELETE", f"/api/v3/predictions/{name}", 409)
        deleted = await api.ask("POST", "/api/v3/predictions/delete", json={"ids": [name]})
        assert deleted == {"deleted_count": 0}
        await api.ask("POST", f"/api/v3/predictions/{name}/cancel")
        async with asyncio.timeout(10):
            await client.cancelled.wait()
        assert (await api.final(name))["status"] == "failed"
        gone = await api.ask("DELETE", f"/api/v3/predictions/{name}")
        assert gone == {"id": name, "status": "deleted"}
        await api.ask("GET", f"/api/v3/predictions/{name}/result", 404)


async def test_a_removed_prediction_takes_its_pictures_along(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        data = await api.final((await api.submit())["id"])
        assert (await api.http.get(data["outputs"][0])).status_code == 200
        deleted = await api.ask("POST", "/api/v3/predictions/delete", json={"ids": [data["id"]]})
        assert deleted == {"deleted_count": 1}
        assert (await api.http.get(data["outputs"][0])).status_code == 404


async def three(api: Api) -> list[str]:
    """The ids of three finished predictions, the newest first."""
    names = [(await api.submit(seed=seed))["id"] for seed in range(3)]
    for name in names:
        await api.final(name)
    return names[::-1]


async def test_the_list_has_pages_filters_and_inputs_on_demand(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        names = await three(api)

        async def listed(**query: Any) -> list[str]:
            page = await api.ask("POST", "/api/v3/predictions", json=query)
            assert page["page"] == query.get("page", 1)
            return [item["id"] for item in page["items"]]

        assert await listed() == names
        assert await listed(page=1, page_size=2) == names[:2]
        assert await listed(page=2, page_size=2) == names[2:]
        assert await listed(status="completed") == names
        assert await listed(status="failed") == await listed(status="timeout") == []
        assert await listed(model="wavespeed-ai/instant-character") == names
        assert await listed(model="a/b") == []
        assert await listed(created_after="2026-01-01") == names
        assert await listed(created_after="2100-01-01T00:00:00Z") == []
        assert await listed(created_before="2100-01-01T00:00:00+02:00") == names
        page = await api.ask("POST", "/api/v3/predictions", json={"include_inputs": True})
        assert page["items"][0]["input"]["prompt"] == "waving"
        assert page["items"][0]["input"]["image"].startswith("sha256:")
        body = await api.ask("POST", "/api/v3/predictions", 422, json={"created_after": "soon"})
        assert "`created_after`" in body["message"]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("predictions", {"page": 0}, "`page`: 0 is not allowed; allowed: a whole number from 1"),
        ("predictions", {"status": "done"}, "created, processing, completed"),
        ("predictions", {"created_before": 5}, "a time such as 2026-11-30T12:00:00Z"),
        ("predictions", {"pages": 1}, "did you mean `page`"),
        ("predictions", {"model": "x" * 201}, "text of 0..200 characters"),
        ("predictions/delete", {}, "`ids`: is required"),
        ("predictions/delete", {"ids": []}, "`ids`: [] is not allowed; allowed: a list of 1..100"),
        ("predictions/delete", {"ids": [1]}, "`ids.0`: 1 is not allowed"),
        ("model/price", {"model_id": "a/b", "inputs": []}, "an object"),
        ("media/uploads", {"filename": "a.png", "size": -1}, "a whole number from 0"),
    ],
)
async def test_a_wrong_field_of_any_body_is_told_with_what_is_allowed(
    tmp_path: Path, path: str, body: dict[str, Any], expected: str
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        answer = await api.ask("POST", f"/api/v3/{path}", 422, json=body)
        assert expected in answer["message"]
