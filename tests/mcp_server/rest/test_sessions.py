"""Sessions of browsers: a cookie that only the server's own pages can use, and for REST alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from castmate.jobs.keys import Scope
from castmate_mcp.http import session
from tests.doubles import FlatClient
from tests.mcp_server.running import Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]
PATH = "/api/v3/session"
OURS = {"sec-fetch-site": "same-origin"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(FlatClient(), tmp_path / "data", with_mcp=True) as api:
        yield api


async def log_in(api: Api, name: str = "ann", **limits: Any) -> str:
    """Makes a key and a session; the client keeps the cookie. Gives the cookie as it was set."""
    secret = (await api.key(name, **limits))["authorization"].removeprefix("Bearer ")
    answer = await api.http.post(PATH, json={"key": secret}, headers=OURS)
    assert answer.status_code == 200, answer.text
    assert secret not in answer.text + answer.headers["set-cookie"]
    return str(answer.headers["set-cookie"])


async def test_a_page_of_ours_needs_the_key_once(api: Api) -> None:
    cookie = await log_in(api, scopes=[Scope.READ])
    parts = cookie.split("; ")
    assert {"HttpOnly", "SameSite=strict", "Path=/api/v3", "Max-Age=86400"} <= {*parts}
    assert "Secure" not in parts
    body = await api.ask("GET", PATH, headers=OURS)
    assert (body["key"], body["scopes"]) == ("ann", ["read"])
    assert body["expires_at"].endswith("Z")
    await api.ask("POST", "/api/v3/predictions", json={}, headers=OURS)
    refused = await api.ask("POST", "/api/v3/characters", 403, json={}, headers=OURS)
    assert "no scope 'generate'" in refused["message"]
    gone = await api.http.delete(PATH, headers=OURS)
    assert gone.json()["data"] == {"id": "session", "status": "deleted"}
    assert not api.http.cookies
    await api.ask("GET", PATH, 401, headers=OURS)


async def test_a_cookie_changes_something_for_our_own_pages_alone(api: Api) -> None:
    await log_in(api)
    for headers, status in (
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": api.url}, 403),
        ({"origin": api.url}, 200),
        ({"origin": "https://elsewhere.example"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[broken"}, 403),
        ({}, 403),
    ):
        body = await api.ask("POST", "/api/v3/predictions", status, json={}, headers=headers)
        if status == 403:
            assert "only for the pages of this server" in body["message"]


async def test_an_address_that_a_user_types_is_read_and_a_frame_elsewhere_is_not(api: Api) -> None:
    await log_in(api)
    await api.ask("GET", "/api/v3/characters", headers={"sec-fetch-site": "none"})
    await api.ask("GET", "/api/v3/characters", 403, headers={"sec-fetch-site": "cross-site"})


async def test_a_session_ends_with_its_key_and_by_itself(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log_in(api)
    await api.ask("GET", PATH, headers=OURS)
    await api.gateway.castmate.keys.revoke("ann")
    await api.ask("GET", PATH, 401, headers=OURS)
    monkeypatch.setattr(session, "LASTS_S", -1.0)
    await log_in(api, "bob")
    await api.ask("GET", PATH, 401, headers=OURS)


async def test_a_cookie_that_this_server_has_not_signed_is_none(api: Api) -> None:
    value = (await log_in(api)).partition("=")[2].partition(";")[0]
    expires, name, proof = value.split(".")
    api.http.cookies.clear()
    forged = [
        f"{int(expires) + 1}.{name}.{proof}",
        f"{expires}.Ym9i.{proof}",
        f"{expires}.{name}.{'0' * 64}",
        f"{expires}.%.{proof}",
        "x",
    ]
    for one in forged:
        headers = OURS | {"cookie": f"{session.COOKIE}={one}"}
        await api.ask("GET", PATH, 401, headers=headers)
    await api.ask("GET", PATH, headers=OURS | {"cookie": f"{session.COOKIE}={value}"})


async def test_a_cookie_opens_neither_mcp_nor_the_metrics(api: Api) -> None:
    value = (await log_in(api, scopes=list(Scope))).partition(";")[0]
    headers = OURS | {"cookie": value}
    listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    answer = await api.http.post("/mcp", json=listed, headers=headers)
    assert answer.status_code == 401
    assert (await api.http.get("/metrics", headers=headers)).status_code == 401


async def test_another_page_cannot_log_a_browser_in(api: Api) -> None:
    secret = (await api.key("eve"))["authorization"].removeprefix("Bearer ")
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://elsewhere.example"}):
        await api.ask("POST", PATH, 403, json={"key": secret}, headers=headers)
    await api.ask("POST", PATH, json={"key": secret})  # a program
    await api.ask("POST", PATH, 401, json={"key": "wsk_wrong"}, headers=OURS)
    body = await api.ask("POST", PATH, 422, json={"secret": secret}, headers=OURS)
    assert "`secret`" in body["message"]
    large = {"key": "w" * 100_000}
    await api.ask("POST", PATH, 413, json=large, headers=OURS)


async def test_a_key_in_the_header_counts_and_the_cookie_does_not(api: Api) -> None:
    await log_in(api, "ann")
    bob = await api.key("bob")
    assert (await api.ask("GET", PATH, headers=bob))["key"] == "bob"
    wrong = {"authorization": "Bearer wsk_wrong"} | OURS
    await api.ask("GET", PATH, 401, headers=wrong)


async def test_behind_https_the_cookie_is_secure(tmp_path: Path) -> None:
    public = {"public_url": "https://cast.example.com"}
    async with serving(FlatClient(), tmp_path / "data", **public) as api:
        headers = {"origin": "https://cast.example.com"}
        secret = (await api.key("ann"))["authorization"].removeprefix("Bearer ")
        answer = await api.http.post(PATH, json={"key": secret}, headers=headers)
        assert "; Secure" in answer.headers["set-cookie"]


async def test_without_keys_this_machine_has_every_scope_and_no_cookie(api: Api) -> None:
    answer = await api.http.post(PATH, json={}, headers=OURS)
    assert answer.json()["data"] == {"key": "local", "scopes": sorted(Scope)}
    assert "set-cookie" not in answer.headers
    assert (await api.ask("GET", PATH))["key"] == "local"
    for headers in ({"host": "evil.example:8787"}, {"origin": "https://elsewhere.example"}):
        await api.ask("GET", PATH, 403, headers=headers)
        await api.ask("POST", PATH, 403, json={}, headers=headers)
