"""`castmate generate` submits a prediction: durable, within the caps, and nobody else's work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from castmate.clients.wavespeed.client import WaveSpeedClient
from castmate.fetch import PinnedBackend
from castmate.images import Reference
from castmate.jobs.predictions import Outcome, Prediction, State
from castmate.router import Router
from castmate.service import Castmate
from castmate.settings import Settings
from tests.castmate.command import castmate_
from tests.castmate.jobs.conftest import freeze, submitter
from tests.doubles import FlatClient, picture, routed
from tests.fakes.hosted_worker import hurry, public
from tests.fakes.http import Tunnel
from tests.fakes.wavespeed import KEY, FakeWaveSpeed

SCENE = ["--image", "fox.png", "--prompt", "waving", "--size", "512*640", "--seed", "7"]
# The command, with a client that never ends.
STUCK = (
    "from castmate import cli; from castmate.router import Router;"
    "from tests.doubles import StuckClient, routed;"
    "Router.of = lambda settings: routed(StuckClient()); cli.main()"
)


@pytest.fixture(autouse=True)
def folder(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reference lies in it, and leases are short."""
    (own_folder / "fox.png").write_bytes(picture())
    monkeypatch.setenv("CASTMATE_LEASE_S", "1")
    return own_folder


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FlatClient:
    drawing = FlatClient()
    monkeypatch.setattr(Router, "of", lambda settings: routed(drawing))
    return drawing


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWaveSpeed]:
    """The hosted service is the only client."""
    fake = FakeWaveSpeed()
    monkeypatch.setenv("CASTMATE_WAVESPEED_API_KEY", KEY)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(fake.running()) as at:
        monkeypatch.setenv("CASTMATE_WAVESPEED_BASE_URL", f"http://127.0.0.1:{at}")
        monkeypatch.setenv("CASTMATE_ALLOW_HTTP", "1")
        backend = PinnedBackend(public, Tunnel(at))
        monkeypatch.setattr(
            Router,
            "of",
            lambda settings: routed(WaveSpeedClient(settings, sleep=hurry, backend=backend)),
        )
        yield fake


def every() -> list[Prediction]:
    """What is in the ledger, the newest first, with attempts."""

    async def look() -> list[Prediction]:
        async with working(None) as castmate:
            return [await castmate.ledger.get(one.id) for one in await castmate.ledger.list()]

    return asyncio.run(look())


@contextlib.asynccontextmanager
async def working(client: FlatClient | None, **settings: Any) -> AsyncIterator[Castmate]:
    """Another process's part: the same data folder, and perhaps a server that draws."""
    router = routed(client) if client is not None else None
    async with Castmate.open(Settings.load(**settings), router=router) as castmate:
        if client is not None:
            castmate.work()
        async with asyncio.timeout(60):
            yield castmate


@contextlib.asynccontextmanager
async def stuck_command(castmate: Castmate) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command in a process of its own, once it draws."""
    pipe = asyncio.subprocess.PIPE
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {STUCK}"],
        *["generate", *SCENE, "-o", "scene.png"],
        stdout=pipe,
        stderr=pipe,
    )
    try:
        while not await castmate.ledger.list(state=State.PROCESSING):
            assert process.returncode is None
            await asyncio.sleep(0.05)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def test_what_it_drew_is_in_the_ledger_with_the_attempt_and_its_client(client: FlatClient) -> None:
    assert castmate_("generate", *SCENE, "-o", "scene.png").exit_code == 0
    (prediction,) = every()
    assert (prediction.state, prediction.key_name) == (State.COMPLETED, "local")
    assert [(one.outcome, one.client) for one in prediction.attempts] == [
        (Outcome.COMPLETED, "flat")
    ]


def test_a_hosted_picture_is_paid_within_the_caps_and_listed(
    hosted: FakeWaveSpeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTMATE_MAX_USD_PER_DAY", "0.15")
    first = castmate_("generate", *SCENE, "-o", "scene.png", "--steps", "20")
    assert (first.exit_code, "Drawn by wavespeed" in first.stdout) == (0, True), first.stderr
    assert "for $0.100" in first.stdout
    second = castmate_("generate", *SCENE, "-o", "other.png", "--json")
    error = json.loads(second.stdout)["error"]
    assert (second.exit_code, error["code"]) == (1, "budget_exceeded")
    assert (error["charged"], len(hosted.charged)) == (False, 1)
    assert not Path("other.png").exists()
    (paid,) = json.loads(castmate_("spend", "--json").stdout)["payments"]
    assert (paid["remote_id"], paid["state"]) == (hosted.charged[0], "settled")


def test_a_lost_reply_to_a_paid_request_is_told_as_such(hosted: FakeWaveSpeed) -> None:
    result = castmate_("generate", *SCENE[:2], "--prompt", "LOST", "--json")
    error = json.loads(result.stdout)["error"]
    assert (result.exit_code, error["code"], error["charged"]) == (1, "maybe_charged", None)
    assert len(hosted.charged) == 1


def test_an_interrupted_prediction_is_cancelled_in_the_ledger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(FlatClient):
        async def generate(self, *args: Any, **kwargs: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            await asyncio.wait_for(asyncio.Event().wait(), 5)

    monkeypatch.setattr(Router, "of", lambda settings: routed(Interrupted()))
    assert castmate_("generate", *SCENE).exit_code == 130
    (prediction,) = every()
    assert (prediction.state, prediction.attempts[0].outcome) == (
        State.CANCELLED,
        Outcome.CANCELLED,
    )


def test_it_draws_at_once_and_only_its_own_however_much_waits_for_a_server(
    client: FlatClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fill() -> None:
        async with working(None, queue_limit=1) as castmate:
            await submitter(castmate.ledger, Reference.from_bytes(picture(), "red.png"))()

    asyncio.run(fill())
    monkeypatch.setenv("CASTMATE_QUEUE_LIMIT", "1")
    assert castmate_("generate", *SCENE).exit_code == 0
    assert [one.state for one in every()] == [State.COMPLETED, State.CREATED]
    assert len(client.requests) == 1


def test_a_data_folder_that_cannot_be_written_is_one_clear_error(
    client: FlatClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").touch()
    monkeypatch.setenv("CASTMATE_DATA_DIR", str(folder / "file/data"))
    result = castmate_("generate", *SCENE)
    assert result.exit_code == 2
    assert str(folder / "file/data") in result.stderr
    assert client.requests == []


@pytest.mark.anyio
@pytest.mark.slow
async def test_a_command_that_is_killed_loses_nothing_where_a_server_works() -> None:
    async with working(None) as castmate, stuck_command(castmate) as command:
        (prediction,) = await castmate.ledger.list()
        command.kill()
        await command.wait()
        async with working(FlatClient()):
            found = await castmate.ledger.wait(prediction.id)
    assert [one.outcome for one in found.attempts] == [Outcome.DIED, Outcome.COMPLETED]


@pytest.mark.anyio
@pytest.mark.slow
async def test_a_command_that_was_frozen_gives_the_picture_that_a_server_made_meanwhile(
    folder: Path,
) -> None:
    async with working(None) as castmate, stuck_command(castmate) as command:
        (prediction,) = await castmate.ledger.list()
        await freeze(command.send_signal, Settings.load().data_dir)
        async with working(FlatClient()):
            assert (await castmate.ledger.wait(prediction.id)).state is State.COMPLETED
        command.send_signal(signal.SIGCONT)
        out, err = await command.communicate()
    assert command.returncode == 0, err.decode()
    assert "Drawn by flat (flat)" in out.decode()
    assert (folder / "scene.png").exists()
