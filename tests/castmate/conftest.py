"""The shipped model, loaded once, and its characters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from castmate.clients.local import LocalClient
from castmate.engines.bundle import Bundle, locate
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from tests.fakes.world import World


@pytest.fixture(scope="session")
def toon() -> Pipeline:
    bundle = Bundle.open("toon")
    return Pipeline(bundle, OnnxRuntime(bundle))


@pytest.fixture
async def local(toon: Pipeline) -> AsyncIterator[LocalClient]:
    client = LocalClient(toon)
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def character() -> Callable[[str], Reference]:
    """A shipped reference by its name."""

    def load(name: str) -> Reference:
        path = locate("toon") / "references" / f"{name}.png"
        return Reference.from_bytes(path.read_bytes(), path.name)

    return load


@pytest.fixture
def make_request() -> Callable[..., GenerateRequest]:
    """A quick valid request with the given parameters changed."""

    def make(**values: Any) -> GenerateRequest:
        quick = {
            "prompt": "waving on the beach",
            "image": "mira.png",
            "size": "512*512",
            "seed": 7,
            "num_inference_steps": 3,
        }
        return GenerateRequest.parse(quick | values)

    return make


@pytest.fixture
async def world(own_folder: object) -> AsyncIterator[World]:
    """The hosted client and the service, for one test."""
    async with World.running() as made:
        yield made
