"""A real tritonserver on the CPU, and the fixtures of the library's tests."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from castmate.clients.triton.client import TritonClient
from castmate.triton.environment import installed
from castmate.triton.server import Installation, Ports, TritonServer
from tests.castmate.conftest import character, local, make_request, toon  # noqa: F401

ROOT = Path(__file__).parents[2]
StartServer = Callable[..., TritonServer]


@pytest.fixture(scope="session")
def installation() -> Installation:
    found = installed(ROOT / ".venv-triton")
    assert found is not None, "run `make triton` once; these tests are never skipped"
    return found


def models_with(folder: Path, **parameters: str) -> Path:
    """A copy of the model repository with other parameters."""
    copy = folder / "triton_models"
    shutil.copytree(ROOT / "triton_models", copy)
    config = copy / "castmate/config.pbtxt"
    text = config.read_text()
    for name, value in parameters.items():
        start = text.index("string_value", text.index(f'key: "{name}"'))
        end = text.index("}", start)
        text = f'{text[:start]}string_value: "{value}" {text[end:]}'
    config.write_text(text)
    return copy


@pytest.fixture(scope="module")
def start_server(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartServer]:
    """Starts servers on free ports; they end with the module and must leave nothing behind."""
    servers: list[TritonServer] = []

    def start(
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        **parameters: str,
    ) -> TritonServer:
        folder = tmp_path_factory.mktemp("triton")
        server = TritonServer(
            installation,
            models_with(folder, bundle="toon", **parameters),
            Ports.free(),
            folder / "tritonserver.log",
            environment=environment,
            options=options,
        )
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()
        assert server.shared_memory == []


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> TritonServer:
    return start_server()


@pytest.fixture
async def client(server: TritonServer) -> AsyncIterator[TritonClient]:
    client = TritonClient((server.url,))
    yield client
    await client.aclose()


@pytest.fixture
def metric(server: TritonServer) -> Callable[[str], float]:
    """Reads one line of the server's metrics page; 0 where it is not there yet."""

    def read(name: str) -> float:
        url = f"http://{server.ports.host}:{server.ports.metrics}/metrics"
        with urllib.request.urlopen(url, timeout=10) as response:
            lines: list[str] = response.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))

    return read
