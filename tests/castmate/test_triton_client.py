"""TritonClient against a gRPC server that follows a script: what it makes of each answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry import context, trace
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

from castmate.clients.triton.client import TritonClient
from castmate.clients.triton.discovery import REFRESH_S, Discovery
from castmate.defaults import Defaults
from castmate.errors import (
    ImageRejected,
    InvalidRequest,
    Overloaded,
    Problem,
    SettingsError,
    Unavailable,
)
from castmate.images import Reference
from castmate.schema import GeneratedImage, GenerateRequest, OutputFormat
from castmate.settings import Settings
from castmate.triton import wire
from tests.doubles import DEFAULTS, FRAMED

MakeRequest = Callable[..., GenerateRequest]
Character = Callable[[str], Reference]

pytestmark = pytest.mark.anyio

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


async def test_a_request_is_sent_once_with_its_prompt_its_image_and_its_parameters(
    server: ScriptedServer, connect: Connect, draw: Draw, character: Character
) -> None:
    result = await draw(connect(server), guidance_scale=2.5, cache="fast")
    assert [image.data for image in result.images] == [b"png"]
    assert result.computed_steps == 1
    assert result.reference == FRAMED
    (request,) = server.requests
    assert [tensor.name for tensor in request.inputs] == ["prompt", "image"]
    assert request.raw_input_contents[1].endswith(character("mira").data)
    assert request.parameters["guidance_scale"].double_param == 2.5
    assert request.parameters["seed"].int64_param == 7
    assert request.parameters["size"].string_param == "512*512"
    assert request.parameters["cache"].string_param == "fast"


async def test_what_is_left_to_the_model_is_not_sent_and_its_report_says_what_it_took(
    server: ScriptedServer, connect: Connect, draw: Draw
) -> None:
    server.script = [*DONE[:-1], wire.report(FACTS | {"drawn_with": {"num_inference_steps": 8}})]
    client = connect(server)
    result = await draw(client, num_inference_steps=None)
    (request,) = server.requests
    assert not {*Defaults.model_fields} & {*request.parameters}
    assert result.drawn_with == {"num_inference_steps": 8}
    assert client.defaults is None  # nobody has asked yet
    await client.probe(server.url)
    assert client.defaults == DEFAULTS


async def test_errors_of_the_model_arrive_as_what_they_were(
    server: ScriptedServer, connect: Connect, draw: Draw
) -> None:
    client = connect(server)
    for sent in (
        InvalidRequest([Problem("size", "'1*1' is out of range", "512..1536")]),
        ImageRejected("the image is a PDF", hint="Convert it."),
        Overloaded("full", retry_after_s=3.5),
    ):
        text = wire.encode_error(sent)
        server.script = [Fail(text)]
        with pytest.raises(type(sent)) as caught:
            await draw(client)
        assert caught.value.as_dict() == sent.as_dict()


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        ("UNAVAILABLE", "Socket closed", "cannot be reached: Socket closed. Is it running?"),
        ("RESOURCE_EXHAUSTED", "too large", "failed: RESOURCE_EXHAUSTED too large"),
        (None, "Stub process 'x' is not healthy.", "lost its model's process; restart it"),
        (None, "Failed to increase the shared memory pool", "larger --shm-size"),
        (None, "Request for unknown model: 'castmate'", "failed: Request for unknown model"),
        (None, '{"code": "error", "message": "The model failed: oh"}', "The model failed"),
        (None, '{"code": "bundle_corrupt", "message": "x is missing"}', "x is missing"),
    ],
)
async def test_any_other_failure_is_unavailable_with_its_reason_and_address(
    server: ScriptedServer, connect: Connect, draw: Draw, status: str | None, text: str, said: str
) -> None:
    server.script = [wire.ahead(0), Fail(text, grpc.StatusCode[status] if status else None)]
    with pytest.raises(Unavailable) as caught:
        await draw(connect(server))
    assert type(caught.value) is Unavailable
    assert said in str(caught.value)
    assert server.url in str(caught.value)


async def test_a_server_that_falls_silent_is_given_up_in_time(
    server: ScriptedServer, connect: Connect, draw: Draw
) -> None:
    server.script = [wire.ahead(0), wire.progress(0, 3), FREEZE]
    with pytest.raises(Unavailable, match=r"sent nothing for 0\.2 s"):
        await draw(connect(server, event_timeout_s=0.2))
    await asyncio.wait_for(server.cancelled.wait(), 5)


async def test_a_server_that_lives_and_does_not_get_on_is_given_up_too(
    server: ScriptedServer, connect: Connect, draw: Draw
) -> None:
    server.script = [wire.progress(1, 3), *[wire.ahead(0)] * 10_000]
    with pytest.raises(Unavailable, match=r"lives and has not got on for 0\.01 s"):
        await draw(connect(server, stall_timeout_s=0.01))


async def test_waiting_for_ones_turn_is_no_stall(
    server: ScriptedServer, connect: Connect, draw: Draw
) -> None:
    server.script = [*[wire.ahead(2)] * 200, *DONE]
    assert (await draw(connect(server, stall_timeout_s=0.001, event_timeout_s=5))).images


async def test_cancelling_the_task_cancels_the_request_on_the_server(
    server: ScriptedServer, connect: Connect, draw: Draw
) -> None:
    server.script = [wire.progress(0, 3), FREEZE]
    begun = asyncio.Event()
    task = asyncio.ensure_future(draw(connect(server), lambda progress: begun.set()))
    await asyncio.wait_for(begun.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(server.cancelled.wait(), 5)


async def test_another_server_takes_a_request_that_the_first_refused_before_it_began(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    broken, whole, _ = servers
    client = connect(broken, whole)
    broken.script, whole.load = [gone()], 1
    assert (await draw(client)).images
    assert (len(broken.requests), len(whole.requests)) == (1, 1)
    assert (await draw(client)).images
    assert (len(broken.requests), len(whole.requests)) == (1, 2)  # the broken one rests


async def test_when_a_server_dies_in_the_midst_another_one_draws_the_same_picture(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    broken, whole, _ = servers
    broken.script, whole.load = [wire.ahead(0), gone()], 1
    assert (await draw(connect(broken, whole))).images
    assert len(whole.requests) == 1
    assert whole.requests[0].inputs == broken.requests[0].inputs


async def test_a_request_that_kills_whatever_draws_it_does_not_meet_every_server(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    client = connect(*servers)
    for server in servers:
        server.script = [wire.ahead(0), gone()]
    with pytest.raises(Unavailable, match="Socket closed") as caught:
        await draw(client)
    assert caught.value.died
    assert sorted(len(server.requests) for server in servers) == [0, 1, 1]


async def test_requests_that_others_have_sent_to_a_server_count_too(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    client = connect(*servers)
    for server, load in zip(servers, (3, 0, 2), strict=True):
        server.load = load
    assert (await draw(client)).images
    assert [len(server.requests) for server in servers] == [0, 1, 0]


async def test_a_full_server_passes_the_request_on_and_when_all_are_full_the_shortest_wait_is_told(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    first, second, _ = servers
    client = connect(first, second)
    for server, wait_s in ((first, 9.0), (second, 4.0)):
        text = wire.encode_error(Overloaded("full", retry_after_s=wait_s))
        server.script = [Fail(text)]
    with pytest.raises(Overloaded) as caught:
        await draw(client)
    assert caught.value.retry_after_s == 4.0
    second.script = DONE
    assert (await draw(client)).images


async def test_a_server_that_leaves_its_name_finishes_what_it_draws(
    servers: list[ScriptedServer], draw: Draw
) -> None:
    first, second, _ = servers
    port = first.url.rpartition(":")[2]
    other = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(second, other)
    other.add_insecure_port(f"127.0.0.2:{port}")
    await other.start()
    addresses, now = ["127.0.0.1"], [0.0]

    async def lookup(host: str, port: int) -> Sequence[str]:
        return list(addresses)

    name = (f"dns:///gpus:{port}",)
    discovery = Discovery(name, lookup=lookup, clock=lambda: now[0])
    client = TritonClient(name, discovery=discovery)
    held, going_on = asyncio.Event(), asyncio.Event()
    first.script = [wire.ahead(0), (held, going_on), PICTURE, wire.report(FACTS)]
    async with asyncio.timeout(20):
        drawing = asyncio.ensure_future(draw(client))
        await held.wait()
        addresses[:], now[:] = ["127.0.0.2"], [REFRESH_S]
        while not second.requests:
            await draw(client)
        going_on.set()
        assert (await drawing).images
        await client.aclose()
        await other.stop(None)


async def test_a_bad_request_is_not_tried_elsewhere(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    text = wire.encode_error(InvalidRequest([Problem("size", "no")]))
    for server in servers:
        server.script = [Fail(text)]
    with pytest.raises(InvalidRequest):
        await draw(connect(*servers))
    assert sum(len(server.requests) for server in servers) == 1


async def test_concurrent_requests_are_spread_over_the_servers(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    client = connect(*servers)
    await asyncio.gather(*(draw(client) for _ in range(6)))
    assert [len(server.requests) for server in servers] == [2, 2, 2]


async def test_a_failed_server_is_asked_before_it_gets_another_request(
    server: ScriptedServer, connect: Connect, draw: Draw
) -> None:
    client = connect(server)
    server.script, server.dead = [Fail("oh")], True
    for _ in range(2):
        with pytest.raises(Unavailable):
            await draw(client)
    assert len(server.requests) == 1
    server.script, server.dead = DONE, False
    assert (await draw(client)).images


async def test_when_no_server_works_the_error_tells_of_each(
    servers: list[ScriptedServer], connect: Connect, draw: Draw
) -> None:
    for server in servers:
        server.script = [gone()]
    with pytest.raises(Unavailable) as caught:
        await draw(connect(*servers))
    assert all(server.url in str(caught.value) for server in servers)


async def test_the_callers_trace_goes_along(
    server: ScriptedServer, connect: Connect, draw: Draw
) -> None:
    span = trace.NonRecordingSpan(
        trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    )
    token = context.attach(trace.set_span_in_context(span))
    try:
        await draw(connect(server))
    finally:
        context.detach(token)
    assert server.headers["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"


async def test_errors_are_not_asked_for_as_a_grpc_status_which_can_end_the_whole_server(
    server: ScriptedServer, connect: Connect, draw: Draw
) -> None:
    await draw(connect(server))
    assert "triton_grpc_error" not in server.headers


async def test_the_settings_name_the_servers(own_folder: object) -> None:
    with pytest.raises(SettingsError, match="CASTMATE_TRITON_URLS names no server"):
        TritonClient.open(Settings.load())


def test_several_servers_are_separated_by_commas(
    own_folder: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTMATE_TRITON_URLS", "gpu-1:8001, gpu-2:8001,")
    assert Settings.load().triton_urls == ("gpu-1:8001", "gpu-2:8001")
