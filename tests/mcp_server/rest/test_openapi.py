"""The OpenAPI document: whole, valid, and true of what a running server answers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from castmate_mcp.rest.openapi import document
from castmate_mcp.rest.operations import OPERATIONS
from tests.doubles import FlatClient
from tests.mcp_server.running import serving

SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


def test_every_operation_is_described_once_with_its_errors() -> None:
    paths = document(("house/toon",))["paths"]
    described = [one for methods in paths.values() for one in methods.values()]
    assert len(described) == len(OPERATIONS)
    names = [one["operationId"] for one in described]
    assert len(set(names)) == len(names)
    for one in described:
        assert one["description"]
        assert {"200", "401", "403", "503"} <= one["responses"].keys()
        assert ("requestBody" in one) <= ("413" in one["responses"])


def test_the_catch_all_is_tried_last() -> None:
    routes = [operation.route() for operation in OPERATIONS]
    catch_alls = [route.path for route in routes if ":path}" in route.path]
    assert catch_alls == [route.path for route in routes[-2:]]


@pytest.mark.anyio
async def test_the_document_and_the_page_need_no_key(own_folder: Path, tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        await api.key("ann")
        document = (await api.http.get("/openapi.json")).json()
        assert document["openapi"] == "3.1.0"
        inputs = document["components"]["schemas"]["Submission"]["properties"]
        assert inputs["num_inference_steps"]["default"] == 28
        assert document["servers"] == [{"url": api.url}]
        page = await api.http.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        for path in document["paths"]:
            assert f"{path}</code>" in page.text
        assert "<script" not in page.text


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.timeout(300)
async def test_no_generated_request_gets_a_5xx_or_an_answer_that_is_not_described(
    own_folder: Path, tmp_path: Path
) -> None:
    options = ["--max-examples", "8", "--generation-deterministic", "--no-color"]
    options += ["--request-timeout", "30"]  # on a busy machine
    options += ["--exclude-path-regex", "^/api/v2/"]  # other names of the same
    options += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing,stateful"]
    app_options = {"sync_cap_s": 0.05}  # a hundred of its drawings outlast any
    async with serving(FlatClient(), tmp_path / "data", app_options, queue_limit=10_000) as api:
        process = await asyncio.create_subprocess_exec(
            SCHEMATHESIS,
            "run",
            f"{api.url}/openapi.json",
            *options,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(280):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, output.decode()[-8000:]
        assert (await api.ask("POST", "/api/v3/predictions", json={}))["items"]  # it got that far
