"""A Triton server that follows a script, and the fixtures around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

from castmate.clients.triton.client import TritonClient
from castmate.images import Reference
from castmate.schema import GeneratedImage, GenerateRequest, OutputFormat
from castmate.triton import wire
from tests.doubles import DEFAULTS

MakeRequest = Callable[..., GenerateRequest]
Character = Callable[[str], Reference]

FACTS = {
    "model": "scripted",
    "timings_ms": {"total": 1.0},
    "warnings": [],
    "computed_steps": 1,
    "reference": {"framing": "alpha", "box": [0.25, 0.0, 0.75, 1.0]},
}
PICTURE = wire.picture(
    GeneratedImage(data=b"png", output_format=OutputFormat.PNG, width=512, height=512, seed=7)
)
DONE = [wire.ahead(0), wire.progress(0, 1), PICTURE, wire.progress(1, 1), wire.report(FACTS)]


@dataclass(frozen=True)
class Fail:
    """The script ends with an error: a response with a text, as Triton sends it, or a status."""

    text: str
    status: grpc.StatusCode | None = None


def gone() -> Fail:
    """What a client sees of a server that ended."""
    return Fail("Socket closed", grpc.StatusCode.UNAVAILABLE)


FREEZE = "freeze"
Step = wire.Outputs | Fail | str | tuple[asyncio.Event, asyncio.Event]


class ScriptedServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Plays a script for each request; probes are answered unless it is said to be dead."""

    def __init__(self) -> None:
        self.script: Sequence[Step] = DONE
        self.dead = False
        self.load = 0
        self.requests: list[Any] = []
        self.headers: dict[str, str] = {}
        self.cancelled = asyncio.Event()
        self.url = ""

    async def ModelStreamInfer(
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        request = await anext(requests)
        self.headers = dict(context.invocation_metadata())
        if wire.PROBE in request.parameters:
            if self.dead:
                text = "Stub process 'castmate_0' is not healthy."
                yield service_pb2.ModelStreamInferResponse(error_message=text)
                return
            state = {"model": "scripted", "defaults": DEFAULTS.model_dump()}
            load = {"waiting": max(0, self.load - 1), "running": min(1, self.load)}
            yield response(wire.report(state | load))
            return
        self.requests.append(request)
        try:
            for step in self.script:
                if isinstance(step, Fail):
                    if step.status is None:
                        yield service_pb2.ModelStreamInferResponse(error_message=step.text)
                        return
                    await context.abort(step.status, step.text)
                elif isinstance(step, str):
                    await asyncio.Event().wait()
                elif isinstance(step, tuple):  # said to have come so far, and told to go on
                    step[0].set()
                    await step[1].wait()
                else:
                    yield response(step)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def response(outputs: wire.Outputs) -> Any:
    message = service_pb2.ModelStreamInferResponse()
    kinds = {"int32": "INT32", "int64": "INT64", "bool": "BOOL", "uint8": "UINT8"}
    for name, array in outputs.items():
        output = message.infer_response.outputs.add()
        output.name, output.datatype = name, kinds.get(str(array.dtype), "BYTES")
        output.shape.extend(array.shape)
        if output.datatype == "BYTES":
            raw = serialize_byte_tensor(np.asarray(array, dtype=object)).item()
        else:
            raw = array.tobytes()
        message.infer_response.raw_output_contents.append(raw)
    return message


@pytest.fixture
async def servers() -> AsyncIterator[list[ScriptedServer]]:
    scripted = [ScriptedServer(), ScriptedServer(), ScriptedServer()]
    running = []
    for each in scripted:
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(each, server)
        each.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        running.append(server)
    yield scripted
    for server in running:
        await server.stop(None)


@pytest.fixture
def server(servers: list[ScriptedServer]) -> ScriptedServer:
    return servers[0]


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., TritonClient]]:
    clients: list[TritonClient] = []

    def open_client(*servers: ScriptedServer, **options: Any) -> TritonClient:
        clients.append(TritonClient(tuple(server.url for server in servers), **options))
        return clients[-1]

    yield open_client
    for client in clients:
        await asyncio.wait_for(client.aclose(), 5)


Connect = Callable[..., TritonClient]
Draw = Callable[..., Awaitable[Any]]


@pytest.fixture
def draw(make_request: MakeRequest, character: Character) -> Draw:
    async def start(client: TritonClient, on_progress: Any = None, **values: Any) -> Any:
        generating = client.generate(make_request(**values), character("mira"), on_progress)
        return await asyncio.wait_for(generating, 20)

    return start
