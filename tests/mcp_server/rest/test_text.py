"""Text that no database takes is answered with a 4xx, wherever a caller puts it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.doubles import FlatClient
from tests.mcp_server.running import MODEL, Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

JSON = {"content-type": "application/json"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(FlatClient(), tmp_path / "data") as api:
        yield api


@pytest.mark.parametrize("escaped", [r"\u0000", r"\ud800"])
@pytest.mark.parametrize("field", ["prompt", "negative_prompt", "image"])
async def test_in_a_body(api: Api, field: str, escaped: str) -> None:
    values = {"prompt": "waving", "image": api.image} | {field: "a?b"}
    body = json.dumps(values).replace("a?b", f"a{escaped}b")
    answer = await api.ask("POST", MODEL, 422, content=body, headers=JSON)
    assert field in answer["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v3/predictions/%00"),
        ("GET", "/api/v3/predictions/a%00b/result"),
        ("DELETE", "/api/v3/predictions/a%00b"),
        ("GET", "/api/v3/predictions/%ED%A0%80"),
        ("GET", "/files/a%00b"),
    ],
)
async def test_in_a_path(api: Api, method: str, path: str) -> None:
    answer = await api.http.request(method, path)
    assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v3/predictions", r'{"page": 1, "page_size": 1, "model": "\u0000"}'),
        ("/api/v3/predictions", r'{"page": 1, "page_size": 1, "model": "\ud800"}'),
        ("/api/v3/predictions/delete", r'{"ids": ["\u0000"]}'),
        ("/api/v3/predictions/delete", r'{"ids": ["\ud800"]}'),
        ("/api/v3/storyboards", r'{"image": "x", "scenes": ["a\u0000", "b"]}'),
        ("/api/v3/storyboards", r'{"image": "x", "scenes": ["a\ud800", "b"]}'),
        ("/api/v3/storyboards", r'{"image": "x", "scenes": ["a", "b"], "style_words": "\u0000"}'),
        ("/api/v3/storyboards/%00/cancel", "{}"),
        (f"{MODEL}?webhook=https://x.example/%00", "{}"),
        (f"{MODEL}?webhook=https://x%00.example/", "{}"),
        ("/api/v3/media/uploads", r'{"filename": "a\u0000.png", "size": 1}'),
    ],
)
async def test_nothing_is_an_outage(api: Api, path: str, body: str) -> None:
    answer = await api.http.post(path, content=body, headers=JSON)
    assert answer.status_code < 500, answer.text
