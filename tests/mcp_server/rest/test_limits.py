"""Keys and limits: who may do what, how much, and how that is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from castmate.errors import Overloaded
from castmate.images import MAX_BYTES
from castmate.jobs.keys import Key, Scope
from castmate_mcp.http.limits import Gate, RateLimiter
from tests.doubles import FakeClock, FlatClient, StuckClient, picture
from tests.mcp_server.running import MODEL, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]


async def test_without_a_key_nothing_is_answered_once_there_is_one(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        ann = await api.key("ann")
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic YTpi"}):
            answer = await api.http.get("/api/v3/balance", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["error"] == answer.json()["message"]
        await api.ask("GET", "/api/v3/balance", headers=ann)
        await api.gateway.castmate.keys.revoke("ann")
        body = await api.ask("GET", "/api/v3/balance", 401, headers=ann)
        assert "revoked" in body["message"]


async def test_two_keys_do_not_see_one_another(tmp_path: Path) -> None:
    async with serving(StuckClient(), tmp_path / "data") as api:
        ann, bob = await api.key("ann"), await api.key("bob")
        name = (await api.ask("POST", MODEL, json=api.inputs(), headers=ann))["id"]
        path = f"/api/v3/predictions/{name}"
        for method, at in (("GET", ""), ("GET", "/result"), ("POST", "/cancel"), ("DELETE", "")):
            mine = await api.ask(method, path + at, 404, headers=bob)
            nobodys = await api.ask(method, f"/api/v3/predictions/{'0' * 32}{at}", 404, headers=bob)
            assert mine["message"].replace(name, "") == nobodys["message"].replace("0" * 32, "")
        listed = await api.ask("POST", "/api/v3/predictions", json={}, headers=bob)
        assert listed["items"] == []
        deleted = await api.ask(
            "POST", "/api/v3/predictions/delete", json={"ids": [name]}, headers=bob
        )
        assert deleted == {"deleted_count": 0}
        same = {"idempotency-key": "one"}
        first = await api.ask("POST", MODEL, json=api.inputs(), headers=ann | same)
        second = await api.ask("POST", MODEL, json=api.inputs(), headers=bob | same)
        assert first["id"] != second["id"]


async def test_a_key_does_what_its_scopes_say(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        reader = await api.key("reader", scopes=[Scope.READ])
        await api.ask("GET", "/api/v3/models", headers=reader)
        body = await api.ask("POST", MODEL, 403, json=api.inputs(), headers=reader)
        assert "'generate'" in body["message"]
        assert (await api.http.get("/metrics", headers=reader)).status_code == 403
        watcher = await api.key("watcher", scopes=[Scope.METRICS])
        shown = await api.http.get("/metrics", headers=watcher)
        assert 'castmate_ledger_predictions{state="created"} 0.0' in shown.text
        assert (await api.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}]
)
async def test_a_web_page_cannot_use_a_server_without_keys(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        await api.ask("POST", MODEL, 403, json=api.inputs(), headers=headers)
        own = {"origin": api.url}
        await api.ask("POST", MODEL, json=api.inputs(), headers=own)


async def test_a_key_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        ann, bob = await api.key("ann", per_minute=60), await api.key("bob", per_minute=60)
        answers = [await api.http.get("/api/v3/balance", headers=ann) for _ in range(20)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert int(refused[-1].headers["retry-after"]) >= 1
        assert "60 times a minute" in refused[-1].json()["message"]
        await api.ask("GET", "/api/v3/balance", headers=bob)


async def test_a_rate_lets_its_burst_through_and_then_one_after_the_other() -> None:
    clock = FakeClock()
    limiter, key = RateLimiter(clock), Key("ann", per_minute=60)
    for _ in range(10):
        limiter.take(key)
    with pytest.raises(Overloaded) as caught:
        limiter.take(key)
    assert caught.value.retry_after_s == pytest.approx(1)
    await clock.sleep(1)
    limiter.take(key)
    with pytest.raises(Overloaded):
        limiter.take(key)
    limiter.take(Key("free"))
    limiter.take(key, cost=0)
    await clock.sleep(60)
    limiter.take(key, cost=20)  # a large upload is let in, and paid off
    with pytest.raises(Overloaded) as caught:
        limiter.take(key)
    assert caught.value.retry_after_s == pytest.approx(11)


async def test_a_gate_counts_requests_and_bytes_and_forgets_them() -> None:
    gate = Gate(max_requests=1, max_body_bytes=100)
    with gate.requests.hold(), pytest.raises(Overloaded), gate.requests.hold():
        pass
    with gate.body_bytes.hold(60):
        with pytest.raises(Overloaded), gate.body_bytes.hold(41):
            pass
        with gate.body_bytes.hold(40):
            pass
    with gate.requests.hold(), gate.body_bytes.hold(100):
        pass


async def test_a_stranger_holds_no_memory_of_a_server_that_has_keys(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        await api.key("ann")
        reader, writer = await asyncio.open_connection(
            api.http.base_url.host, api.http.base_url.port
        )
        writer.write(
            f"POST {MODEL} HTTP/1.1\r\nhost: a\r\ncontent-length: 20000000\r\n\r\n".encode()
        )
        async with asyncio.timeout(10):
            assert b" 401 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_a_bug_is_told_without_its_details_and_found_by_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:

        async def broken(secret: str | None) -> None:
            raise RuntimeError("hunter2")

        monkeypatch.setattr(api.gateway.castmate.keys, "admit", broken)
        answer = await api.http.get("/api/v3/balance")
        assert (answer.status_code, answer.json()["code"]) == (500, 500)
        assert "RuntimeError" in answer.json()["message"]
        assert "hunter2" not in answer.text
        assert answer.headers["x-request-id"]


async def test_a_key_has_so_many_unfinished_predictions_and_no_more(tmp_path: Path) -> None:
    async with serving(StuckClient(), tmp_path / "data") as api:
        ann, bob = await api.key("ann", concurrency=2), await api.key("bob")
        asked = [api.http.post(MODEL, json=api.inputs(seed=seed), headers=ann) for seed in range(6)]
        answers = await asyncio.gather(*asked)
        assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 4
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert "retry-after" in refused.headers
        assert "'ann' has 2 predictions" in refused.json()["message"]
        await api.ask("POST", MODEL, json=api.inputs(), headers=bob)


async def test_a_full_queue_is_429_before_a_picture_is_fetched(tmp_path: Path) -> None:
    client = StuckClient()
    async with serving(client, tmp_path / "data", queue_limit=1) as api:
        await api.submit()
        async with asyncio.timeout(10):
            await client.started.wait()
        await api.submit(seed=8)
        answer = await api.http.post(MODEL, json=api.inputs(image="https://nowhere.invalid/a.png"))
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["reason"] == "overloaded"


async def test_a_body_that_is_too_large_is_413(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        large = "A" * (MAX_BYTES * 3 // 2)
        body = await api.ask("POST", MODEL, 413, json=api.inputs(image=large))
        assert "MiB" in body["message"]
        asked = {"filename": "a.png", "size": MAX_BYTES + 1}
        await api.ask("POST", "/api/v3/media/uploads", 413, json=asked)
        form = {"file": ("a.png", picture() + bytes(MAX_BYTES + 2**17), "image/png")}
        await api.ask("POST", "/api/v3/media/upload/binary", 413, files=form)
        form = {"file": ("a.png", picture() + bytes(MAX_BYTES - 100), "image/png")}
        await api.ask("POST", "/api/v3/media/upload/binary", 413, files=form)


async def test_an_upload_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        page = {"file": ("a.png", b"<html><script>alert(1)</script>", "image/png")}
        body = await api.ask("POST", "/api/v3/media/upload/binary", 422, files=page)
        assert "no picture" in body["message"]
        other = {"filename": "a.mp4", "size": 5, "content_type": "video/mp4"}
        await api.ask("POST", "/api/v3/media/uploads", 422, json=other)
        await api.ask("POST", "/api/v3/media/upload/binary", 400, content=b"x")
        field = {"other": ("a.png", picture(), "image/png")}
        await api.ask("POST", "/api/v3/media/upload/binary", 422, files=field)
        headers = {"content-type": "multipart/form-data; boundary=x"}
        cut = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
        answer = await api.http.post("/api/v3/media/upload/binary", content=cut, headers=headers)
        assert answer.status_code in (400, 422)


async def test_every_answer_has_the_id_of_its_request(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        given = await api.http.get("/healthz", headers={"x-request-id": "mine-1"})
        assert given.headers["x-request-id"] == "mine-1"
        drawn = await api.http.get("/healthz", headers={"x-request-id": "not one"})
        assert len(drawn.headers["x-request-id"]) == 32


async def test_a_budget_of_a_key_is_its_balance(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        ann = await api.key("ann", max_usd=1.25)
        assert (await api.ask("GET", "/api/v3/balance", headers=ann))["balance"] == 1.25
