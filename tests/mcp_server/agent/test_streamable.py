"""MCP over HTTP: who is let in, what each of them sees, and how pictures get there and back."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import anyio
import httpx2
import jwt
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from castmate.errors import SettingsError
from castmate.jobs.keys import Scope
from castmate.router import Router
from castmate.service import Castmate
from castmate_mcp.agent.server import GENERATE
from castmate_mcp.agent.streamable import build_mcp_app
from castmate_mcp.app import build_app
from castmate_mcp.http.gateway import Gateway
from castmate_mcp.http.limits import Gate
from castmate_mcp.settings import ServerSettings
from tests.doubles import FlatClient, encoded, noise, picture, routed
from tests.mcp_server.conftest import Agent

pytestmark = pytest.mark.anyio

RED = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"


class Site:
    """A server on a real port."""

    def __init__(
        self, castmate: Castmate[ServerSettings], url: str, drawing: FlatClient, gateway: Gateway
    ) -> None:
        self.castmate, self.url, self.drawing, self.gateway = castmate, url, drawing, gateway
        self.keys = castmate.keys

    @asynccontextmanager
    async def agent(self, era: str, secret: str | None = None) -> AsyncIterator[Agent]:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=30) as http,
            Client(streamable_http_client(f"{self.url}/mcp", http_client=http), mode=era) as client,
        ):
            yield Agent(client, self.drawing, self.castmate)

    async def post(self, **headers: str) -> httpx2.Response:
        """A plain request, with what a browser or a stranger would send."""
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
        accept = {"accept": "application/json, text/event-stream"}
        async with httpx2.AsyncClient() as http:
            return await http.post(f"{self.url}/mcp", json=message, headers=accept | headers)

    async def get(self, path: str, secret: str) -> httpx2.Response:
        """A request to the REST API beside it."""
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {secret}"}) as http:
            return await http.get(self.url + path)


@asynccontextmanager
async def site(**options: Any) -> AsyncIterator[Site]:
    drawing = FlatClient()
    settings = ServerSettings.load(image_roots=(), **options)
    with anyio.fail_after(60):
        async with serve_site(settings, routed(drawing)) as (castmate, url, gateway):
            yield Site(castmate, url, drawing, gateway)


@asynccontextmanager
async def serve_site(
    settings: ServerSettings, router: Router
) -> AsyncIterator[tuple[Castmate[ServerSettings], str, Gateway]]:
    """A server whose clients are those of `router`."""
    async with Castmate.open(settings, router=router) as castmate:
        castmate.work()
        app = build_app(castmate, mcp=build_mcp_app(castmate))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve)
            while not server.started:
                await anyio.sleep(0.005)
            port = server.servers[0].sockets[0].getsockname()[1]
            yield castmate, f"http://127.0.0.1:{port}", app.state.gateway
            server.should_exit = True


async def test_without_keys_programs_of_this_machine_are_let_in_and_web_pages_are_not(
    own_folder: Path, era: str
) -> None:
    (own_folder / "fox.png").write_bytes(picture())
    async with site() as here:
        async with here.agent(era) as agent:
            names = [tool.name for tool in (await agent.client.list_tools()).tools]
            assert names[0] == GENERATE
            assert names[-1] == "create_upload_link"
            drawn = await agent.draw(image=(await upload(agent, here))["image"])
            async with httpx2.AsyncClient() as http:
                got = await http.get(drawn["download_url"])
            assert got.content == Path(drawn["file_path"]).read_bytes()
        assert (await here.post(origin="https://evil.example")).status_code == 401
        assert (await here.post(host="evil.example")).status_code == 401
        await here.keys.create("ann")
        assert (await here.post()).status_code == 401


async def upload(agent: Agent, here: Site) -> dict[str, Any]:
    link = await agent.succeed("create_upload_link")
    assert link["upload_url"] in link["next_step"]
    assert "nothing was sent" in await agent.fail(image=link["image"])
    async with httpx2.AsyncClient() as http:
        sent = await http.put(link["upload_url"], content=picture(colour="blue"))
        again = await http.put(link["upload_url"], content=picture())
    assert (sent.status_code, again.status_code) == (200, 409)
    return link


@pytest.mark.parametrize("options", [{}, {"wavespeed_api_key": "key"}], ids=["free", "paid"])
async def test_ten_tools_are_below_12_kb(own_folder: Path, options: dict[str, str]) -> None:
    async with site(**options) as here, here.agent("auto") as agent:
        tools = (await agent.client.list_tools()).tools
        wire = [tool.model_dump_json(by_alias=True, exclude_none=True) for tool in tools]
        assert len(tools) == 10
        assert sum(map(len, wire)) < 12_000


async def test_two_keys_see_nothing_of_each_other(own_folder: Path, era: str) -> None:
    (own_folder / "fox.png").write_bytes(picture())
    async with site() as here:
        _, ann = await here.keys.create("ann")
        _, bob = await here.keys.create("bob")
        async with here.agent(era, ann) as anns, here.agent(era, bob) as bobs:
            out = await anns.succeed(image=RED)
            (image,) = out["images"]
            assert "file_path" not in image
            saved = await anns.succeed("create_character", name="Fox", references=[RED])
            for kind in ("images", "characters", "jobs"):
                assert len((await anns.succeed("list_library", kind=kind))["items"]) == 1
                assert (await bobs.succeed("list_library", kind=kind))["items"] == []
            assert "no prediction" in await bobs.fail("get_job", job_id=out["job_id"])
            assert "no prediction" in await bobs.fail("cancel_job", job_id=out["job_id"])
            assert "no finished picture" in await bobs.fail(
                "view_image", image_id=image["image_id"]
            )
            for name in (image["image_id"], saved["character_id"]):
                assert "there is no picture or character" in await bobs.fail(image=name)
            for uri in (image["image_uri"], saved["character_uri"], f"job://{out['job_id']}"):
                with pytest.raises(MCPError):
                    await bobs.client.read_resource(uri)
                await anns.client.read_resource(uri)
            assert "no path" in await bobs.fail(image=str(own_folder / "fox.png"))
            stored = here.castmate.storage.local_path("")
            assert stored is not None
            (file,) = stored.glob("outputs/*/0.png")
            assert "no path" in await bobs.fail(image=str(file))


async def test_what_agents_submit_is_counted_with_the_rest(own_folder: Path) -> None:
    async with site() as here:
        _, ann = await here.keys.create("ann")
        _, watcher = await here.keys.create("watcher", scopes=[Scope.METRICS])
        async with here.agent("2026-07-28", ann) as agent:
            await agent.succeed(image=RED)
        shown = (await here.get("/metrics", watcher)).text
        assert 'castmate_predictions_submitted_total{door="mcp"} 1.0' in shown


async def test_a_revoked_key_or_one_without_the_scope_is_refused(own_folder: Path) -> None:
    async with site() as here:
        _, ann = await here.keys.create("ann")
        _, eye = await here.keys.create("eye", scopes=[Scope.READ])
        assert (await here.post(authorization=f"Bearer {eye}")).status_code == 403
        assert (await here.post(authorization="Bearer nope")).status_code == 401
        async with here.agent("auto", ann) as agent:
            await agent.succeed("get_status")
        await here.keys.revoke("ann")
        assert (await here.post(authorization=f"Bearer {ann}")).status_code == 401


async def test_a_key_that_may_run_one_job_is_told_to_wait(own_folder: Path) -> None:
    async with site(worker_slots=0) as here:
        _, ann = await here.keys.create("ann", concurrency=1)
        async with here.agent("auto", ann) as agent:
            image = (await upload(agent, here))["image"]
            await agent.succeed(image=image, wait_seconds=0)
            message = await agent.fail(image=image, prompt="running", wait_seconds=0)
            assert "predictions that are not finished, as many as may" in message
            assert f"Call {GENERATE} again in" in message


async def test_a_key_that_calls_too_often_reads_when_to_call_again_and_may_look_meanwhile(
    own_folder: Path, era: str
) -> None:
    async with site() as here:
        _, ann = await here.keys.create("ann", per_minute=6)
        _, bob = await here.keys.create("bob", per_minute=6)
        async with here.agent(era, ann) as agent:
            out = await agent.succeed(image=RED)
            message = await agent.fail(image=RED, prompt="running")
            assert "may ask 6 times a minute, and has; nothing was charged" in message
            assert re.search(rf"Call {GENERATE} again in ([1-9]|10) s\.$", message)
            assert len(await here.castmate.ledger.list()) == 1
            assert await agent.succeed("get_job", job_id=out["job_id"]) == out
            await agent.succeed("list_library")
            answer = await here.get("/api/v3/balance", ann)
            assert answer.status_code == 429
        async with here.agent(era, bob) as agent:
            await agent.succeed(image=RED)


async def test_a_picture_of_the_size_that_rest_takes_may_come_as_a_data_uri(
    own_folder: Path, era: str
) -> None:
    large = base64.b64encode(encoded(noise((1400, 1400)))).decode()
    assert len(large) > 6 * 2**20
    async with site() as here, here.agent(era) as agent:
        await agent.draw(image=f"data:image/png;base64,{large}")


async def test_a_server_that_holds_all_it_can_says_when_to_come_back_and_strangers_hold_nothing(
    own_folder: Path,
) -> None:
    async with site() as here:
        _, ann = await here.keys.create("ann")
        here.gateway.gate = Gate(max_requests=0)
        full = await here.post(authorization=f"Bearer {ann}")
        assert (full.status_code, full.headers["retry-after"]) == (429, "1")
        assert (await here.post(authorization="Bearer nope")).status_code == 401
        here.gateway.gate = Gate(max_body_bytes=10)
        assert (await here.post(authorization=f"Bearer {ann}")).status_code == 429
        here.gateway.gate = Gate()
        assert (await here.post(authorization=f"Bearer {ann}")).status_code in (200, 400)


async def test_tokens_of_an_oauth_server_open_the_door_if_they_were_made_for_it(
    own_folder: Path,
) -> None:
    with issuer() as (url, sign):
        public = "https://cast.example.com"
        async with site(public_url=public, oauth_issuer=url) as here:
            answer = await here.post(host="cast.example.com")
            assert answer.status_code == 401
            document = f"{public}/.well-known/oauth-protected-resource/mcp"
            assert f'resource_metadata="{document}"' in answer.headers["www-authenticate"]
            async with httpx2.AsyncClient() as http:
                got = await http.get(f"{here.url}/.well-known/oauth-protected-resource/mcp")
            assert got.json()["authorization_servers"] == [url]
            assert got.json()["resource"] == f"{public}/mcp"
            good = {"aud": f"{public}/mcp", "scope": "generate read", "sub": "ann"}
            async with here.agent("auto", sign(**good)) as agent:
                await agent.draw(image=RED)
            assert (await here.castmate.ledger.list())[0].key_name == "oauth:ann"
            for wrong, status in (
                ({"aud": "https://other.example.com/mcp"}, 401),
                ({"iss": "https://other.example.com"}, 401),
                ({"exp": int(time.time()) - 10}, 401),
                ({"scope": "read"}, 403),
            ):
                token = sign(**good | wrong)
                refused = await here.post(authorization=f"Bearer {token}")
                assert refused.status_code == status, wrong


async def test_an_oauth_server_needs_an_address_that_tokens_are_made_for(own_folder: Path) -> None:
    with pytest.raises(SettingsError, match="CASTMATE_PUBLIC_URL"):
        async with site(oauth_issuer="https://login.example.com"):
            pass


@contextmanager
def issuer() -> Iterator[tuple[str, Callable[..., str]]]:
    """An OAuth server's keys on a port, and what it signs."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(private.public_key()))
    document = json.dumps({"keys": [public | {"kid": "one", "alg": "ES256"}]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/.well-known/jwks.json" else 404)
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()

    def sign(**claims: Any) -> str:
        values = {"iss": url, "exp": int(time.time()) + 600} | claims
        return jwt.encode(values, private, "ES256", headers={"kid": "one"})

    try:
        yield url, sign
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
