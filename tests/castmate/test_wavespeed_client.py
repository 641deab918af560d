"""What the hosted client sends, and what it gives back, against the service at the wire."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
from PIL import Image

from castmate.clients.base import Progress
from castmate.clients.payments import PaymentState
from castmate.errors import (
    CastmateError,
    Incapable,
    InvalidRequest,
    MaybeCharged,
    Unavailable,
)
from castmate.images import Reference
from castmate.schema import GenerateRequest, GenerateResult
from tests.doubles import MemoryPayments, picture
from tests.fakes.wavespeed import FOUR, KEY
from tests.fakes.world import REFERENCE, World

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

SUBMITTING, SUBMITTED, SETTLED, RELEASED, UNKNOWN = PaymentState


def opened(result: GenerateResult, index: int = 0) -> Image.Image:
    return Image.open(io.BytesIO(result.images[index].data))


async def test_a_picture_is_submitted_once_polled_downloaded_and_settled(world: World) -> None:
    result = await world.draw()
    assert (result.client, result.model) == ("wavespeed", "wavespeed-ai/instant-character")
    assert (result.cost_usd, result.warnings) == (0.1, ())
    assert opened(result).size == (512, 512)
    assert opened(result).getpixel((0, 0)) == (7, 120, 40)
    assert [(image.seed, image.has_nsfw) for image in result.images] == [(7, False)]
    assert world.payments.history == [(0, SUBMITTING), (0, SUBMITTED), (0, SETTLED)]
    assert world.payments.payments[0].remote_id == world.fake.charged[0]
    assert len(world.fake.submissions) == len(world.fake.charged) == 1
    assert list(result.timings_ms) == ["submit", "wait", "total"]


async def test_a_transparent_background_is_refused_before_anything_is_sent(world: World) -> None:
    with pytest.raises(Incapable, match="draws no transparent background"):
        await world.draw(background="transparent")
    assert world.fake.submissions == []
    assert world.payments.history == []


async def test_polls_are_two_seconds_apart_and_become_rarer(world: World) -> None:
    world.fake.polls = 8
    await world.draw()
    assert world.clock.slept == [2.0, 3.0, 4.5, 6.75, *[10.0] * 5]


async def test_the_bytes_of_the_reference_are_uploaded_once_without_the_key(world: World) -> None:
    await world.draw()
    world.payments = MemoryPayments()
    await world.draw()
    assert next(iter(world.fake.files.values())) == REFERENCE.data
    assert world.fake.count("PUT", "/upload/.*") == 1
    assert world.fake.submissions[1]["image"].startswith("http://files.example/files/0-")


async def test_where_there_are_no_tickets_the_reference_is_uploaded_as_a_form(
    world: World,
) -> None:
    world.fake.tickets = False
    await world.draw()
    assert REFERENCE.data in next(iter(world.fake.files.values()))
    assert world.fake.submissions[0]["image"].endswith("/files/0-form.png")


async def test_a_reference_in_a_format_that_the_hosted_side_may_not_read_is_uploaded_as_png(
    world: World,
) -> None:
    gif = Reference.from_bytes(picture((64, 64), format="GIF"), "fox.gif")
    request = GenerateRequest.parse({"prompt": "waving", "image": "fox.gif"})
    await world.client.generate(request, gif, payments=world.payments)
    uploaded = next(iter(world.fake.files.values()))
    assert Image.open(io.BytesIO(uploaded)).format == "PNG"


async def test_a_flagged_picture_is_black_and_flagged(world: World) -> None:
    result = await world.draw("NSFW")
    assert result.images[0].has_nsfw
    assert opened(result).getextrema() == ((0, 0), (0, 0), (0, 0))
    assert "it is replaced by a black one" in result.warnings[0]


async def test_a_flagged_picture_without_output_is_black_too(world: World) -> None:
    result = await world.draw("NSFW NOOUTPUT")
    assert (result.images[0].has_nsfw, opened(result).size) == (True, (512, 512))


async def test_with_the_safety_checker_off_a_flagged_picture_is_kept_and_told(
    world: World,
) -> None:
    result = await world.draw("NSFW", enable_safety_checker=False)
    assert not result.images[0].has_nsfw
    assert opened(result).getpixel((0, 0)) == (7, 120, 40)
    assert result.warnings == ("WaveSpeed flagged picture 1 as unsafe; you asked to keep it.",)


async def test_size_and_format_are_honoured_here_where_they_are_not_there(world: World) -> None:
    result = await world.draw("SMALLER JPEG", size="700*515", output_format="webp")
    assert (opened(result).format, opened(result).size) == ("WEBP", (700, 515))
    assert [warning.partition(";")[0] for warning in result.warnings] == [
        "WaveSpeed made picture 1 with 636*515 pixels",
        "WaveSpeed made picture 1 as JPEG and lost what JPEG loses",
    ]


async def test_a_file_that_is_what_was_asked_for_is_kept_byte_for_byte(world: World) -> None:
    result = await world.draw("JPEG", output_format="jpeg")
    assert result.images[0].data in world.fake.files.values()
    assert result.warnings == ()


async def test_several_pictures_are_several_submissions_with_a_seed_each(world: World) -> None:
    world.client = world.another_client(wavespeed_per_minute=10)
    seen: list[Progress] = []
    request = GenerateRequest.parse(
        {"prompt": "waving", "image": "-", "seed": 7, "num_images": 4, "num_inference_steps": 5}
    )
    result = await world.client.generate(request, REFERENCE, seen.append, world.payments)
    assert [inputs["seed"] for inputs in world.fake.submissions] == [7, 8, 9, 10]
    assert all("num_images" not in inputs for inputs in world.fake.submissions)
    assert [image.seed for image in result.images] == [7, 8, 9, 10]
    assert [opened(result, i).getpixel((0, 0)) for i in range(4)] == [
        (seed, 120, 40) for seed in (7, 8, 9, 10)
    ]
    assert result.cost_usd == 0.4
    assert [progress.step for progress in seen] == [0, 5, 10, 15, 20]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"seed": -1},
        {"guidance_scale": 2.0, "num_inference_steps": 9, "negative_prompt": "rain"},
        {"enable_safety_checker": False, "true_cfg_scale": 2.0, "subject_scale": 1.0},
    ],
)
@pytest.mark.parametrize("lists", [True, False, None])
@pytest.mark.parametrize("takes_all", [True, False])
async def test_the_hosted_model_never_gets_what_it_does_not_know_if_it_says_so(
    world: World, values: dict[str, Any], lists: bool | None, takes_all: bool
) -> None:
    world.fake.lists = lists
    world.fake.takes = world.fake.takes if takes_all else FOUR
    if takes_all or lists or not set(values) - {"seed"}:
        await world.draw(**values)
        (sent,) = world.fake.submissions
        assert {*FOUR} <= set(sent)
        assert None not in sent.values()
        assert 0 <= sent["seed"] <= 2**31 - 1
    else:
        error = await world.fails("waving", InvalidRequest, **values)
        assert error.charged is False
        assert any(
            f"`{name}`: WaveSpeed's hosted model refuses it" in str(error) for name in values
        )


async def test_every_parameter_that_is_ignored_is_told(world: World) -> None:
    world.fake.takes = FOUR
    result = await world.draw(
        guidance_scale=2.0,
        num_inference_steps=9,
        negative_prompt="rain",
        enable_safety_checker=False,
        subject_scale=1.0,
        true_cfg_scale=2.0,
        cache="fast",
        enable_matting=False,
    )
    assert result.warnings == (
        "WaveSpeed's hosted model has no negative_prompt: 'rain' was ignored.",
        "WaveSpeed's hosted model has no guidance_scale: 2.0 was ignored.",
        "WaveSpeed's hosted model has no num_inference_steps: 9 was ignored.",
        "WaveSpeed's hosted model has no enable_safety_checker: False was ignored.",
        "WaveSpeed's hosted model has no subject_scale: 1.0 was ignored.",
        "WaveSpeed's hosted model has no true_cfg_scale: 2.0 was ignored.",
        "WaveSpeed's hosted model has no cache: 'fast' was ignored.",
        "WaveSpeed's hosted model has no enable_matting: 'false' was ignored.",
    )
    assert (await world.draw(cache="off")).warnings == ()  # which is all that it does


async def test_a_seed_beyond_the_hosted_range_is_folded_and_means_the_same_picture(
    world: World,
) -> None:
    result = await world.draw(seed=2**31 + 5)
    assert world.fake.submissions[0]["seed"] == 5
    assert result.images[0].seed == 2**31 + 5


async def test_a_drawn_seed_is_sent_and_returned(world: World) -> None:
    result = await world.draw(seed=-1)
    assert world.fake.submissions[0]["seed"] == result.images[0].seed >= 0


@pytest.mark.parametrize(
    ("setting", "price", "cost"),
    [(None, 0.3, 0.3), (None, None, 0.2), (None, "down", 0.1), (0.07, 0.3, 0.07)],
)
async def test_the_price_comes_from_the_setting_or_the_service_or_its_documentation(
    world: World, setting: float | None, price: float | str | None, cost: float
) -> None:
    world.fake.price = price
    world.client = world.another_client(wavespeed_price_usd=setting)
    assert (await world.draw()).cost_usd == cost
    assert world.payments.payments[0].price_usd == cost


async def test_a_hosted_model_that_needs_something_new_is_told_before_anything_is_paid(
    world: World,
) -> None:
    world.fake.takes = ("text", "picture")
    error = await world.fails("waving", Unavailable)
    assert "has changed: it needs" in str(error) or "has no image" in str(error)
    assert world.fake.submissions == []


async def test_the_key_is_in_no_log_and_no_repr(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await world.draw()
        for prompt in ("SUBMIT401", "LOST", "FAILED"):
            world.payments = MemoryPayments()
            await world.fails(prompt, *expected(prompt))
    assert caplog.text
    shown = [repr(world.client), repr(world.client._settings), repr(world.client._api)]
    shown += [repr(world.client._api._http.headers)]  # type: ignore[union-attr]
    assert all(KEY not in text for text in [caplog.text, *shown])


def expected(prompt: str) -> tuple[type[CastmateError]]:
    return (MaybeCharged if prompt == "LOST" else Unavailable,)


async def test_the_balance_shows_whether_the_key_is_taken(world: World) -> None:
    assert await world.client.balance_usd() == 4.2
    other = world.another_client(wavespeed_api_key="wsk_other")
    with pytest.raises(Unavailable, match="Check CASTMATE_WAVESPEED_API_KEY") as caught:
        await other.balance_usd()
    assert "wsk_other" not in str(caught.value)
    await other.aclose()
