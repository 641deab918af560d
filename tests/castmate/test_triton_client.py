"""TritonClient against a gRPC server that follows a script: what it makes of each answer."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from opentelemetry import context, trace

from castmate.clients.triton.client import TritonClient
from castmate.defaults import Defaults
from castmate.errors import (
    ImageRejected,
    InvalidRequest,
    Overloaded,
    Problem,
    SettingsError,
    Unavailable,
)
from castmate.settings import Settings
from castmate.triton import wire
from tests.doubles import DEFAULTS, FRAMED
from tests.fakes.triton import (
    DONE,
    FACTS,
    FREEZE,
    Character,
    Connect,
    Draw,
    Fail,
    ScriptedServer,
    connect,
    draw,
    server,
    servers,
)

# Fixtures are found by their names in the module.
__all__ = ["connect", "draw", "server", "servers"]

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]


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
