"""A Triton server is killed while it draws: the next client makes the picture, or that is told."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from castmate.clients.base import Progress
from castmate.clients.local import LocalClient
from castmate.images import Reference
from castmate.jobs.predictions import Outcome, Prediction, State
from castmate.schema import GenerateRequest
from castmate.service import Castmate
from castmate.settings import Settings
from castmate.triton.server import TritonServer

StartServer = Callable[..., TritonServer]

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.usefixtures("own_folder")]


async def predict(
    server: TritonServer, clients: str, request: GenerateRequest, reference: Reference
) -> tuple[Prediction, bytes | None]:
    """Submit to the ledger and kill the server after two steps; what came of it, and a picture."""

    def kill(progress: Progress) -> None:
        if progress.step == 2 and server.is_running():
            os.kill(server.pid, signal.SIGKILL)

    settings = Settings.load(
        clients=clients,
        picture_metadata=False,  # it names the client
        triton_urls=server.url,
        wait_s=1,
    )
    async with Castmate.open(settings) as castmate:
        castmate.work()
        submitted = await castmate.ledger.submit(request, reference)
        found = await castmate.ledger.wait(submitted.id, 60, kill)
        assert not server.is_running(), "it was killed in the midst"
        picture = None
        if found.result is not None:
            picture = await castmate.storage.get(found.result.images[0].name)
    return found, picture


async def test_with_a_fallback_the_caller_gets_the_picture_and_the_ledger_tells_of_both_clients(
    start_server: StartServer,
    local: LocalClient,
    make_request: Callable[..., GenerateRequest],
    character: Callable[[str], Reference],
) -> None:
    server = start_server()
    request = make_request(num_inference_steps=50)
    found, picture = await predict(server, "triton,local", request, character("mira"))
    assert found.state is State.COMPLETED
    assert found.result is not None
    said, made = found.result.warnings
    assert said.startswith(f"triton could not make it: Triton at {server.url} cannot be reached")
    assert made == "local made it instead."
    assert [(one.outcome, one.client) for one in found.attempts] == [(Outcome.COMPLETED, "local")]
    drawn = await local.generate(request, character("mira"))
    assert picture == drawn.images[0].data, "the fallback draws what Triton would have drawn"


async def test_without_a_fallback_the_error_names_the_server_and_what_to_look_at(
    start_server: StartServer,
    make_request: Callable[..., GenerateRequest],
    character: Callable[[str], Reference],
) -> None:
    server = start_server()
    request = make_request(num_inference_steps=50)
    found, picture = await predict(server, "triton", request, character("mira"))
    assert (found.state, picture) == (State.FAILED, None)
    assert found.error is not None
    assert (found.error["code"], found.error["charged"]) == ("unavailable", False)
    assert f"Triton at {server.url} cannot be reached" in found.error["message"]
    assert "Is it running?" in found.error["message"]
    assert found.attempts[-1].error == found.error
