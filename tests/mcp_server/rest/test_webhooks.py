"""Webhooks: signed, tried again, kept over restarts, and never sent to anything private."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from castmate.errors import Unavailable
from castmate.fetch import PinnedBackend
from castmate.jobs.tables import webhooks
from castmate.jobs.webhooks import Delivery, Webhooks
from castmate_mcp.rest.webhooks import signature
from tests.doubles import FlatClient
from tests.fakes.http import Answer, Call, Tunnel
from tests.fakes.http import serving as listening
from tests.fakes.world import public
from tests.mcp_server.running import MODEL, Api, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

HOOK = "http://hooks.example/done"


@dataclass
class Receiver:
    """Someone's server: answers with one status after the other, then 200."""

    statuses: list[int] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, call: Call) -> Answer:
        self.calls.append(call)
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.called.set()
        return Answer(status)


@asynccontextmanager
async def hooked(
    data_dir: Path, port: int, backoff_s: tuple[float, ...] = (0.05, 0.05, 0.05)
) -> AsyncIterator[Api]:
    """A server to which hooks.example is the receiver on a port of this machine."""
    options = {
        "webhook_backoff_s": backoff_s,
        "webhook_backend": PinnedBackend(public, Tunnel(port)),
    }
    async with serving(FlatClient(), data_dir, options, allow_http=True) as api:
        yield api


async def submit(api: Api, **options: Any) -> Any:
    return await api.ask("POST", MODEL, json=api.inputs(), params={"webhook": HOOK}, **options)


async def ended(api: Api, prediction_id: str) -> Any:
    """The row of a webhook that is delivered or given up."""
    query = select(webhooks).where(webhooks.c.prediction_id == prediction_id)
    async with asyncio.timeout(30):
        while True:
            row = await api.gateway.castmate.ledger.database.run(
                lambda tx: tx.connection.execute(query).one()
            )
            if row.finished is not None:
                return row
            await asyncio.sleep(0.02)


def test_the_signature_is_that_of_the_known_vector() -> None:
    name = "3f1c0f7c9a2b4d5e8f60718293a4b5c6"
    body = f'{{"id":"{name}","status":"completed"}}'.encode()
    known = "v3,b904b6814ad35435e5c8236f21cc9695886dce1b25c224384e9e0e81fc927353"
    secret = "whsec_0123456789abcdef0123456789abcdef"
    assert signature(secret, name, "1760000000", body) == known
    assert signature(secret, name, "1760000001", body) != known


async def test_a_receiver_gets_the_bare_prediction_with_its_input_signed(tmp_path: Path) -> None:
    receiver = Receiver()
    async with listening(receiver.answer) as port, hooked(tmp_path / "data", port) as api:
        data = await submit(api)
        async with asyncio.timeout(30):
            await receiver.called.wait()
        (call,) = receiver.calls
        body = call.json()
        assert (body["id"], body["status"]) == (data["id"], "completed")
        assert body["input"]["prompt"] == "waving"
        assert body["outputs"][0].startswith(f"{api.url}/files/")
        headers = call.headers
        assert headers["webhook-id"] == data["id"]
        secret = (await api.ask("GET", "/api/v3/webhook/secret"))["secret"]
        assert secret.startswith("whsec_")
        signed = signature(secret, data["id"], headers["webhook-timestamp"], call.body)
        assert headers["webhook-signature"] == signed
        assert (await ended(api, data["id"])).tries == 1


async def test_each_key_has_its_own_secret(tmp_path: Path) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        secrets = {
            (await api.ask("GET", "/api/v3/webhook/secret", headers=await api.key(name)))["secret"]
            for name in ("ann", "bob")
        }
        assert len(secrets) == 2


async def test_a_receiver_that_is_down_is_told_later(tmp_path: Path) -> None:
    receiver = Receiver([500, 302, 503])
    async with listening(receiver.answer) as port, hooked(tmp_path / "data", port) as api:
        data = await submit(api)
        row = await ended(api, data["id"])
        assert (row.tries, row.error, len(receiver.calls)) == (4, None, 4)


async def test_a_receiver_is_told_once_where_the_ledger_was_away_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [Unavailable("The database restarts.")] * 2
    note = Webhooks.delivered

    async def delivered(self: Webhooks, delivery: Delivery) -> None:
        if away:
            raise away.pop()
        await note(self, delivery)

    monkeypatch.setattr(Webhooks, "delivered", delivered)
    receiver = Receiver()
    async with listening(receiver.answer) as port, hooked(tmp_path, port) as api:
        row = await ended(api, (await submit(api))["id"])
    assert (row.tries, row.error, len(receiver.calls)) == (1, None, 1)


async def test_after_the_last_failure_it_is_given_up_with_the_reason(tmp_path: Path) -> None:
    receiver = Receiver([500] * 9)
    async with listening(receiver.answer) as port, hooked(tmp_path / "data", port) as api:
        row = await ended(api, (await submit(api))["id"])
        assert (row.tries, len(receiver.calls)) == (4, 4)
        assert "status 500" in row.error


async def test_a_webhook_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    receiver = Receiver([503])
    async with listening(receiver.answer) as port:
        async with hooked(tmp_path / "data", port, (2.0,)) as api:
            data = await submit(api)
            async with asyncio.timeout(30):
                while not receiver.calls:
                    await asyncio.sleep(0.02)
        assert not receiver.called.is_set()
        async with hooked(tmp_path / "data", port) as api:
            row = await ended(api, data["id"])
            assert (row.tries, row.error) == (2, None)
        assert json.loads(receiver.calls[1].body)["id"] == data["id"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://hooks.example/", "ftp URL"),
        ("https://user:pw@hooks.example/", "user name"),
        ("https://hooks.example:8080/", "port 8080"),
        ("nothing", "relative URL"),
    ],
)
async def test_an_address_that_nothing_is_sent_to_is_refused_at_once(
    tmp_path: Path, url: str, expected: str
) -> None:
    async with serving(FlatClient(), tmp_path / "data") as api:
        query = {"webhook": url}
        body = await api.ask("POST", MODEL, 422, json=api.inputs(), params=query)
        assert expected in body["message"]
        assert body["problems"][0]["parameter"] == "webhook"


async def test_a_private_address_is_never_reached(tmp_path: Path) -> None:
    receiver = Receiver()
    async with listening(receiver.answer):
        options = {"webhook_backoff_s": ()}
        async with serving(FlatClient(), tmp_path / "data", options, allow_http=True) as api:
            query = {"webhook": "http://127.0.0.1/done"}
            data = await api.ask("POST", MODEL, json=api.inputs(), params=query)
            row = await ended(api, data["id"])
            assert "not on the public internet" in row.error
    assert receiver.calls == []
