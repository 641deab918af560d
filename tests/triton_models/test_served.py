"""Pictures from a real tritonserver: the same as in process, with progress, errors and metrics."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from castmate import cli, reporting
from castmate.clients.base import Progress
from castmate.clients.local import LocalClient
from castmate.clients.triton.client import TritonClient
from castmate.errors import ImageRejected, InvalidRequest
from castmate.images import MAX_BYTES, Reference
from castmate.schema import GenerateRequest, GenerateResult
from castmate.triton.server import Ports, TritonServer

MakeRequest = Callable[..., GenerateRequest]
Character = Callable[[str], Reference]
Metric = Callable[[str], float]

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.usefixtures("one_loop")]


@pytest.mark.parametrize(
    "values",
    [
        {"size": "512*512", "num_images": 2},
        {"size": "640*515", "negative_prompt": "trees", "output_format": "webp"},
        {"size": "512*512", "guidance_scale": 2.7, "subject_scale": 1.1, "prompt": "läuft ☃"},
    ],
    ids=["two pictures", "odd size, negative prompt", "floats and unicode"],
)
async def test_the_bytes_are_those_of_the_client_in_process(
    client: TritonClient,
    local: LocalClient,
    make_request: MakeRequest,
    character: Character,
    values: dict[str, Any],
) -> None:
    request = make_request(**values)
    served = await client.generate(request, character("mira"))
    drawn = await local.generate(request, character("mira"))
    assert served.images == drawn.images
    assert (served.model, served.warnings) == (drawn.model, drawn.warnings)
    assert list(served.timings_ms) == ["queue", *drawn.timings_ms]
    assert (served.client, served.cost_usd) == ("triton", 0.0)


async def test_progress_counts_every_step_in_order(
    client: TritonClient, make_request: MakeRequest, character: Character
) -> None:
    seen: list[Progress] = []
    await client.generate(make_request(num_images=2), character("mira"), seen.append)
    assert seen == [Progress(step, 6) for step in range(7)]


async def test_a_cancel_stops_the_loop_within_a_step_and_frees_the_slot(
    client: TritonClient,
    server: TritonServer,
    make_request: MakeRequest,
    character: Character,
    metric: Metric,
) -> None:
    cancelled = metric('castmate_requests_total{outcome="cancelled"}')
    steps = metric("castmate_step_seconds_count")
    at_step_five = asyncio.Event()

    def watch(progress: Progress) -> None:
        if progress.step == 5:
            at_step_five.set()

    running = asyncio.create_task(
        client.generate(
            make_request(num_inference_steps=50, size="1536*1536"), character("mira"), watch
        )
    )
    await asyncio.wait_for(at_step_five.wait(), 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(client.generate(make_request(), character("mira")), 60)
    assert metric('castmate_requests_total{outcome="cancelled"}') == cancelled + 1
    # Five were done, the cancel arrives during the sixth; the request after it counts two.
    assert metric("castmate_step_seconds_count") - steps <= 5 + 2 + 2
    assert (await client.probe(server.url))["running"] == 0


async def test_one_bad_request_among_ten_fails_alone(
    client: TritonClient, make_request: MakeRequest, character: Character
) -> None:
    bad = dataclasses.replace(character("mira"), data=b"no picture")
    outcomes = await asyncio.gather(
        *(
            client.generate(
                make_request(seed=seed, num_inference_steps=1),
                bad if seed == 4 else character("pim"),
            )
            for seed in range(10)
        ),
        return_exceptions=True,
    )
    (error,) = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert outcomes[4] is error
    assert isinstance(error, ImageRejected)
    assert "the image is not a picture; allowed: a PNG" in str(error)
    results = [outcome for outcome in outcomes if isinstance(outcome, GenerateResult)]
    assert [result.images[0].seed for result in results] == [0, 1, 2, 3, 5, 6, 7, 8, 9]


async def test_hundreds_of_bad_requests_do_not_touch_the_server(
    client: TritonClient, server: TritonServer, make_request: MakeRequest, character: Character
) -> None:
    bad = dataclasses.replace(character("mira"), data=b"no picture")
    for _ in range(200):
        with pytest.raises(ImageRejected):
            await client.generate(make_request(), bad)
    # What tritonserver writes when an error cancels its own stream: the race that can end it.
    assert "HandleCancellation" not in server.log.read_text()


async def test_an_oversized_image_is_refused_and_the_server_goes_on(
    client: TritonClient, make_request: MakeRequest, character: Character
) -> None:
    huge = dataclasses.replace(character("mira"), data=bytes(MAX_BYTES + 1))
    with pytest.raises(ImageRejected, match="more than 20 MiB"):
        await client.generate(make_request(), huge)
    await client.generate(make_request(num_inference_steps=1), character("mira"))


async def test_a_bad_parameter_is_refused_by_the_model_itself(
    client: TritonClient, make_request: MakeRequest, character: Character
) -> None:
    unchecked = make_request().model_copy(update={"size": "9000*9000", "seed": -5})
    with pytest.raises(InvalidRequest) as caught:
        await client.generate(unchecked, character("mira"))
    assert [problem.parameter for problem in caught.value.problems] == ["size", "seed"]


async def test_a_probe_tells_what_the_model_is(client: TritonClient, server: TritonServer) -> None:
    state = await client.probe(server.url)
    assert (state["model"], state["engine"], state["max_waiting"]) == ("toon", "onnxruntime", 16)
    assert state["versions"]["numpy"].startswith("1.26.")  # what the wheel's stub needs


async def test_a_known_character_costs_nothing_on_its_next_picture(
    client: TritonClient, make_request: MakeRequest, character: Character, metric: Metric
) -> None:
    first = await client.generate(make_request(num_inference_steps=2), character("nova"))
    hits = metric('castmate_cache_hits_total{cache="subject"}')
    again = await client.generate(make_request(num_inference_steps=2), character("nova"))
    assert metric('castmate_cache_hits_total{cache="subject"}') == hits + 1
    assert again.timings_ms["subject"] < first.timings_ms["subject"] / 5


async def test_plain_triton_clients_get_pixels_and_errors_they_can_read(
    server: TritonServer, character: Character
) -> None:
    import tritonclient.grpc.aio as triton
    from tritonclient.utils import InferenceServerException

    async with triton.InferenceServerClient(server.url) as plain:

        async def ask(**parameters: Any) -> list[Any]:
            inputs = []
            for name, data in (("prompt", b"waving"), ("image", character("mira").data)):
                tensor = triton.InferInput(name, [1], "BYTES")
                inputs.append(tensor.set_data_from_numpy(np.array([data], object)))

            async def one() -> Any:
                yield {"model_name": "castmate", "inputs": inputs, "parameters": parameters}

            return [response async for response in plain.stream_infer(one())]

        responses = await ask(num_inference_steps=1, size="512*640")
        (drawn,) = [
            result for result, _ in responses if result and result.as_numpy("picture") is not None
        ]
        with Image.open(io.BytesIO(drawn.as_numpy("picture")[0])) as picture:
            assert picture.size == (512, 640)
        assert drawn.as_numpy("has_nsfw").tolist() == [False]

        ((result, error),) = await ask(size=3)
        assert result is None
        assert '"code": "invalid_request"' in error.message()

        with pytest.raises(InferenceServerException, match="decoupled"):
            await plain.infer("castmate", [triton.InferInput("prompt", [1], "BYTES")])


async def test_every_stage_and_step_is_on_the_metrics_page(
    client: TritonClient, make_request: MakeRequest, character: Character, metric: Metric
) -> None:
    await client.generate(make_request(), character("mira"))
    for stage in ("queue", "text", "subject", "denoise", "decode", "safety", "encode", "total"):
        assert metric(f'castmate_stage_seconds_count{{stage="{stage}"}}') >= 1
    assert metric("castmate_step_seconds_count") >= 2
    assert metric('castmate_requests_total{outcome="ok"}') >= 1
    assert metric('castmate_running{instance="castmate_0"}') == 0


def test_the_example_draws_a_picture(server: TritonServer, tmp_path: Path) -> None:
    reference = ROOT / "castmate/bundles/toon/references/mira.png"
    script = [sys.executable, str(ROOT / "triton_models/example.py"), server.url, str(reference)]
    output = tmp_path / "out.png"
    done = subprocess.run(
        [*script, "waving on the beach", str(output)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "step 28 of 28" in done.stdout
    with Image.open(output) as picture:
        assert picture.size == (512, 512)


def test_a_probe_from_the_command_line_is_a_health_check(server: TritonServer) -> None:
    probed = CliRunner().invoke(cli.app, ["serve", "probe", server.url])
    assert (probed.exit_code, json.loads(probed.stdout)["model"]) == (0, "toon")
    nobody = f"127.0.0.1:{Ports.free().grpc}"
    refused = CliRunner().invoke(cli.app, ["serve", "probe", nobody])
    assert refused.exit_code == reporting.FAILED
    assert f"Triton at {nobody} cannot be reached" in refused.stderr
