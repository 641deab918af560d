"""What a caller of the embedded model can rely on, through the client interface."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from castmate.clients.base import Progress
from castmate.clients.local import LocalClient
from castmate.errors import Cancelled
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import MAX_SEED, GenerateRequest

MakeRequest = Callable[..., GenerateRequest]
Character = Callable[[str], Reference]

pytestmark = pytest.mark.anyio


async def picture(client: LocalClient, request: GenerateRequest, reference: Reference) -> bytes:
    result = await client.generate(request, reference)
    return result.images[0].data


async def test_the_same_seed_and_request_give_the_same_bytes(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    first = await picture(local, make_request(), character("mira"))
    assert first == await picture(local, make_request(), character("mira"))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"prompt": "running in the forest"},
        {"subject_scale": 0},
        {"guidance_scale": 1.0},
        {"num_inference_steps": 4},
        {"negative_prompt": "trees"},
        {"size": "512*576"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_each_parameter_changes_the_picture(
    local: LocalClient, make_request: MakeRequest, character: Character, change: dict[str, object]
) -> None:
    plain = await picture(local, make_request(), character("mira"))
    assert plain != await picture(local, make_request(**change), character("mira"))


@pytest.mark.slow
async def test_true_cfg_scale_matters_only_with_a_negative_prompt(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    async def draw(**values: object) -> bytes:
        return await picture(local, make_request(**values), character("mira"))

    assert await draw() == await draw(true_cfg_scale=9.0)
    negative = {"negative_prompt": "trees"}
    assert await draw(**negative) != await draw(**negative, true_cfg_scale=9.0)


async def test_at_scale_1_a_negative_prompt_changes_no_byte_and_is_said_to_be_ignored(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    plain = await local.generate(make_request(), character("mira"))
    request = make_request(negative_prompt="trees", true_cfg_scale=1)
    result = await local.generate(request, character("mira"))
    assert result.images[0].data == plain.images[0].data
    assert result.warnings == (
        "negative_prompt has no effect when true_cfg_scale is 1, so it was ignored.",
    )


async def test_two_passes_at_a_scale_beside_1_give_that_picture_within_rounding(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    async def pixels(**values: object) -> NDArray[np.int16]:
        data = await picture(local, make_request(**values), character("mira"))
        return np.asarray(Image.open(BytesIO(data)), np.int16)

    one_pass = await pixels(negative_prompt="trees", true_cfg_scale=1)
    two_passes = await pixels(negative_prompt="trees", true_cfg_scale=1 + 1e-6)
    assert np.abs(one_pass - two_passes).max() <= 1
    assert np.abs(one_pass - await pixels(negative_prompt="trees")).max() > 20


@pytest.mark.slow
async def test_another_reference_gives_another_picture_unless_the_scale_is_zero(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    mira, rusty = character("mira"), character("rusty")
    assert await picture(local, make_request(), mira) != await picture(local, make_request(), rusty)
    text_only = make_request(subject_scale=0)
    assert await picture(local, text_only, mira) == await picture(local, text_only, rusty)


@pytest.mark.slow
async def test_four_pictures_differ_and_each_is_made_again_by_its_own_seed(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    result = await local.generate(make_request(num_images=4), character("mira"))
    assert [image.seed for image in result.images] == [7, 8, 9, 10]
    assert len({image.data for image in result.images}) == 4
    second = result.images[1]
    assert second.data == await picture(local, make_request(seed=second.seed), character("mira"))


async def test_seed_minus_one_draws_a_seed_and_returns_it(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    result = await local.generate(make_request(seed=-1), character("mira"))
    (image,) = result.images
    assert 0 <= image.seed <= MAX_SEED
    again = await picture(local, make_request(seed=image.seed), character("mira"))
    assert image.data == again


@pytest.mark.parametrize("size", ["512*512", "513*700", "640*515", "1024*512"])
async def test_the_size_is_honoured_exactly(
    local: LocalClient, make_request: MakeRequest, character: Character, size: str
) -> None:
    request = make_request(size=size, num_inference_steps=1)
    (image,) = (await local.generate(request, character("mira"))).images
    width, height = map(int, size.split("*"))
    assert (image.width, image.height) == (width, height)
    assert Image.open(BytesIO(image.data)).size == (width, height)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
async def test_pictures_come_in_the_format_asked_for(
    local: LocalClient, make_request: MakeRequest, character: Character, output_format: str
) -> None:
    request = make_request(output_format=output_format, num_inference_steps=1)
    data = await picture(local, request, character("mira"))
    assert Image.open(BytesIO(data)).format == output_format.upper()


async def test_an_odd_size_is_the_middle_of_the_picture_it_was_cut_from(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    whole = await picture(local, make_request(size="576*576"), character("mira"))
    cut = await picture(local, make_request(size="570*516"), character("mira"))
    expected = Image.open(BytesIO(whole)).crop((3, 30, 573, 546))
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(cut))), np.asarray(expected))


async def test_the_result_says_who_made_it_how_long_each_stage_took_and_that_it_was_free(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    result = await local.generate(make_request(), character("mira"))
    assert (result.client, result.model, result.cost_usd) == ("local", "toon", 0.0)
    stages = ["text", "subject", "denoise", "decode", "safety", "identity", "encode", "total"]
    assert list(result.timings_ms) == stages
    assert sum(list(result.timings_ms.values())[:-1]) <= result.timings_ms["total"]


async def test_switching_the_safety_checker_off_skips_its_stage(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    result = await local.generate(make_request(enable_safety_checker=False), character("mira"))
    assert "safety" not in result.timings_ms


async def test_what_the_model_cannot_read_is_said(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    result = await local.generate(make_request(prompt="waving xyzzy"), character("mira"))
    assert any("xyzzy" in warning for warning in result.warnings)
    result = await local.generate(make_request(prompt="waving " * 60), character("mira"))
    assert any("reads 40 tokens" in warning for warning in result.warnings)


async def test_progress_counts_every_step_of_every_picture_in_order(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    seen: list[Progress] = []
    await local.generate(make_request(num_images=2), character("mira"), seen.append)
    assert [progress.step for progress in seen] == [0, 1, 2, 3, 4, 5, 6]
    assert {progress.total for progress in seen} == {6}


async def test_cancelling_stops_before_the_next_step_and_the_client_goes_on(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    seen: list[int] = []
    running: asyncio.Task[object]

    def cancel_at_five(progress: Progress) -> None:
        seen.append(progress.step)
        if progress.step == 5:
            running.cancel()

    running = asyncio.create_task(
        local.generate(make_request(num_inference_steps=50), character("mira"), cancel_at_five)
    )
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 60)
    # The next request waits for the thread, so by its end the cancelled one has stopped.
    await asyncio.wait_for(local.generate(make_request(), character("mira")), 60)
    assert max(seen) < 50


@pytest.mark.slow
async def test_requests_at_once_are_made_one_after_the_other(
    local: LocalClient, make_request: MakeRequest, character: Character
) -> None:
    requests = [make_request(seed=seed) for seed in (1, 2, 3)]
    together = await asyncio.gather(
        *(local.generate(request, character("pim")) for request in requests)
    )
    for request, result in zip(requests, together, strict=True):
        assert result.images[0].data == await picture(local, request, character("pim"))


async def test_closing_stops_what_runs(
    toon: Pipeline, make_request: MakeRequest, character: Character
) -> None:
    client = LocalClient(toon)
    started = asyncio.Event()
    task = asyncio.create_task(
        client.generate(
            make_request(num_inference_steps=50),
            character("mira"),
            lambda progress: started.set(),
        )
    )
    await asyncio.wait_for(started.wait(), 60)
    await asyncio.wait_for(client.aclose(), 60)
    with pytest.raises(Cancelled, match="of 50 steps"):
        await task
