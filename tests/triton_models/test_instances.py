"""A real server with two instances of the model: a probe of one answers for both."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from castmate.clients.triton.client import TritonClient
from castmate.errors import Unavailable
from castmate.triton.loading import SILENT_PULSES
from castmate.triton.server import Installation, Ports, TritonServer
from tests.triton_models.conftest import models_with
from tests.triton_models.test_serving import descendants

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder", "one_loop")]
PULSE_S = 0.2
WAIT_S = 60.0
PROBES = 6
"""More than enough for Triton to choose either instance."""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = models_with(tmp_path, bundle="toon", pulse_s=str(PULSE_S))
    config = folder / "castmate/config.pbtxt"
    config.write_text(f"{config.read_text()}\ninstance_group [ {{ kind: KIND_CPU count: 2 }} ]\n")
    return folder


async def answers(client: TritonClient, url: str) -> list[str]:
    """What several probes say; nothing where they succeed."""
    found = []
    for _ in range(PROBES):
        try:
            await client.probe(url)
        except Unavailable as error:
            found.append(str(error))
        else:
            found.append("")
    return found


async def test_a_dead_instance_is_noticed_whichever_instance_is_asked(
    installation: Installation, models: Path, tmp_path: Path
) -> None:
    server = TritonServer(installation, models, Ports.free(), tmp_path / "tritonserver.log")
    with server:
        client = TritonClient((server.url,))
        assert await answers(client, server.url) == [""] * PROBES
        stubs = descendants(server.pid)
        assert len(stubs) == 2
        os.kill(stubs[0], signal.SIGKILL)
        end = time.monotonic() + WAIT_S
        found = [""]
        while not all(found) and time.monotonic() < end:
            found = await answers(client, server.url)
        assert all(found), found
        assert any("shows no sign of life" in text for text in found), found
        assert SILENT_PULSES * PULSE_S < WAIT_S
        await client.aclose()
        server.kill()  # with a dead instance it would not end by itself
