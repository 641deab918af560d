"""The hosted client against the service at the wire: what is paid, said and given on a bad day."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from PIL import Image

from castmate.clients.base import Progress
from castmate.clients.payments import Payment, PaymentState
from castmate.clients.wavespeed.client import WaveSpeedClient
from castmate.errors import (
    BudgetExceeded,
    CastmateError,
    DeadlineExceeded,
    InvalidRequest,
    MaybeCharged,
    Overloaded,
    Unavailable,
)
from castmate.fetch import PinnedBackend
from castmate.images import Reference
from castmate.schema import GenerateRequest, GenerateResult
from castmate.settings import Settings
from tests.doubles import FakeClock, MemoryPayments, picture
from tests.fakes.http import PUBLIC, Tunnel
from tests.fakes.wavespeed import FOUR, KEY, FakeWaveSpeed

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

SUBMITTING, SUBMITTED, SETTLED, RELEASED, UNKNOWN = PaymentState
REFERENCE = Reference.from_bytes(picture((64, 64)), "fox.png")


async def public(host: str, port: int) -> list[str]:
    return [PUBLIC]


@dataclass
class World:
    """A client, the service that it talks to, and a clock that nobody waits for."""

    fake: FakeWaveSpeed
    port: int
    clock: FakeClock
    payments: MemoryPayments
    client: WaveSpeedClient

    async def draw(self, prompt: str = "waving", **values: Any) -> GenerateResult:
        told = {"prompt": prompt, "image": "fox.png", "size": "512*512", "seed": 7} | values
        with anyio.fail_after(20):
            return await self.client.generate(
                GenerateRequest.parse(told), REFERENCE, payments=self.payments
            )

    async def fails(self, prompt: str, kind: type[CastmateError], **values: Any) -> CastmateError:
        with pytest.raises(kind) as caught:
            await self.draw(prompt, **values)
        assert type(caught.value) is kind
        assert KEY not in repr(caught.value) + str(caught.value.as_dict())
        return caught.value

    def another_client(self, **changed: Any) -> WaveSpeedClient:
        given = {
            "wavespeed_api_key": KEY,
            "wavespeed_base_url": f"http://127.0.0.1:{self.port}",
            "allow_http": True,
        }
        return WaveSpeedClient(
            Settings.load(**given | changed),
            clock=self.clock,
            sleep=self.clock.sleep,
            submit_timeout_s=0.2,
            read_timeout_s=0.2,
            backend=PinnedBackend(public, Tunnel(self.port)),
        )


@pytest.fixture
async def world(own_folder: object) -> AsyncIterator[World]:
    fake, clock = FakeWaveSpeed(), FakeClock()
    async with fake.running() as port:
        made = World(fake, port, clock, MemoryPayments(), None)  # type: ignore[arg-type]
        made.client = made.another_client()
        yield made
        await made.client.aclose()


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


async def test_without_a_key_nothing_is_sent(world: World) -> None:
    world.client = world.another_client(wavespeed_api_key="")
    error = await world.fails("waving", Unavailable)
    assert "set CASTMATE_WAVESPEED_API_KEY. Nothing was sent or charged." in str(error)
    assert (world.fake.calls, world.payments.history) == ([], [])


async def test_without_somebody_who_keeps_account_nothing_is_sent(world: World) -> None:
    world.payments = None  # type: ignore[assignment]
    error = await world.fails("waving", Unavailable)
    assert "Nothing was sent or charged" in str(error)
    assert world.fake.calls == []


async def test_a_reached_cap_stops_it_before_the_paid_request(world: World) -> None:
    world.payments.cap_usd = 0.05
    error = await world.fails("waving", BudgetExceeded)
    assert (error.charged, world.fake.submissions) == (False, [])


async def test_a_cap_that_is_reached_between_two_pictures_says_what_was_charged(
    world: World,
) -> None:
    world.payments.cap_usd = 0.15
    error = await world.fails("waving", BudgetExceeded, num_images=2)
    assert error.charged is True
    assert f"Charged so far: picture 1 (prediction {world.fake.charged[0]})" in str(error)
    assert len(world.fake.submissions) == 1


@pytest.mark.parametrize(
    ("prompt", "kind", "told"),
    [
        ("SUBMIT400", InvalidRequest, "WaveSpeed's hosted model refuses it: told *** so"),
        ("SUBMIT401", Unavailable, "Check CASTMATE_WAVESPEED_API_KEY. It says: told *** so."),
        ("SUBMIT402", Unavailable, "no funds left. Top it up."),
        ("SUBMIT403", Unavailable, "A key works after the account's first top-up."),
        ("SUBMIT403HTML", Unavailable, "A key works after the account's first top-up."),
        ("SUBMIT404", Unavailable, "Check CASTMATE_WAVESPEED_MODEL."),
        ("SUBMIT413", InvalidRequest, "refuses it"),
        ("SUBMIT429", Overloaded, "Try again in 60 s, or raise the account's tier."),
        ("SUBMIT503", Unavailable, "does not take it (HTTP status 503). Try again later."),
        ("REDIRECT", Unavailable, "Check CASTMATE_WAVESPEED_BASE_URL."),
        ("ENVELOPE400", InvalidRequest, "`guidance_scale`: WaveSpeed's hosted model refuses it"),
    ],
)
async def test_a_refused_submission_is_told_released_and_not_sent_again(
    world: World, prompt: str, kind: type[CastmateError], told: str
) -> None:
    error = await world.fails(prompt, kind)
    assert told in str(error)
    assert error.charged is False
    assert world.payments.history == [(0, SUBMITTING), (0, RELEASED)]
    assert (len(world.fake.submissions), world.fake.charged) == (1, [])


@pytest.mark.parametrize(
    "prompt",
    [
        "LOST",
        "SLOW",
        "CUT",
        "CHARGED502",
        "CHARGEDPAGE",
        "NOID",
        "ODDID",
        "SUBMIT500",
        "SUBMIT502HTML",
        "SUBMIT503HTML",
        "SUBMIT504",
    ],
)
async def test_a_lost_reply_is_told_as_maybe_charged_and_never_sent_again(
    world: World, prompt: str
) -> None:
    error = await world.fails(prompt, MaybeCharged)
    assert "It may have charged $0.10. It is not asked again by itself" in str(error)
    assert error.charged is None
    assert world.payments.history == [(0, SUBMITTING), (0, UNKNOWN)]
    assert len(world.fake.submissions) == 1
    again = await world.fails(prompt, MaybeCharged)  # another attempt of the same prediction
    assert "the attempt that asked ended before it was written down" in str(again)
    assert len(world.fake.submissions) == 1


async def test_a_service_that_is_down_was_never_asked(world: World) -> None:
    await world.draw()  # schema, price and upload are known from now on
    world.payments = MemoryPayments()
    client = world.client
    async with FakeWaveSpeed().running() as dead:
        pass
    client._api._http.base_url = f"http://127.0.0.1:{dead}"  # type: ignore[union-attr, assignment]
    error = await world.fails("waving", Unavailable)
    assert "WaveSpeed cannot be reached (connect error" in str(error)
    assert (error.charged, world.payments.states) == (False, [RELEASED])


@pytest.mark.parametrize(
    "prompt", ["POLL503", "POLL429", "POLLHTML", "POLL500", "POLLDROP", "POLLSLOW", "POLLNULL"]
)
async def test_trouble_while_polling_is_sat_out(world: World, prompt: str) -> None:
    result = await world.draw(prompt)
    assert len(result.images) == 1
    assert len(world.fake.submissions) == 1
    assert world.payments.states == [SETTLED]


async def test_a_service_that_cannot_be_polled_any_more_leaves_the_payment_to_be_resumed(
    world: World,
) -> None:
    error = await world.fails("POLLDEAD", Unavailable)
    assert "WaveSpeed cannot be asked: HTTP status 503" in str(error)
    assert f"Charged so far: picture 1 (prediction {world.fake.charged[0]})" in str(error)
    assert (error.charged, world.payments.states) == (True, [SUBMITTED])


async def test_a_prediction_that_is_never_finished_is_left_at_the_deadline_and_can_be_resumed(
    world: World,
) -> None:
    error = await world.fails("FOREVER", DeadlineExceeded)
    assert "has not finished picture 1" in str(error)
    assert (error.charged, world.payments.states) == (True, [SUBMITTED])
    assert world.clock.now - 1000 <= 300
    world.fake.predictions[world.fake.charged[0]]["words"] = []
    result = await world.draw("FOREVER")
    assert (len(result.images), result.cost_usd, len(world.fake.submissions)) == (1, 0.1, 1)
    assert world.payments.states == [SETTLED]


@pytest.mark.parametrize(
    ("prompt", "kind", "told"),
    [
        ("FAILED", Unavailable, "WaveSpeed failed to make picture 1"),
        ("FAILED1200", InvalidRequest, "`prompt`: WaveSpeed's content moderation refused"),
        ("FAILED1401", InvalidRequest, "hosted model refuses it: the task did not work out"),
        ("FAILED1402", Unavailable, "WaveSpeed failed to make picture 1"),
        ("FAILED5004", DeadlineExceeded, "WaveSpeed ran out of time with picture 1"),
        ("TIMEOUT", DeadlineExceeded, "WaveSpeed ran out of time with picture 1"),
        ("CANCELLED", Unavailable, "was cancelled"),
        ("DELETED", Unavailable, "was deleted"),
        ("NOOUTPUT", Unavailable, "without a picture"),
    ],
)
async def test_a_failed_task_is_told_with_its_reason_and_not_paid_again(
    world: World, prompt: str, kind: type[CastmateError], told: str
) -> None:
    error = await world.fails(prompt, kind)
    assert told in str(error)
    assert error.charged is None
    assert world.payments.states == [SETTLED]
    await world.fails(prompt, kind)
    assert len(world.fake.submissions) == 1


async def test_an_upload_that_could_not_be_read_is_done_again_for_the_next_request(
    world: World,
) -> None:
    await world.fails("FAILED1402", Unavailable)
    world.payments = MemoryPayments()
    await world.draw()
    assert world.fake.count("PUT", "/upload/.*") == 2


async def test_a_prediction_that_is_forgotten_is_told_as_charged(world: World) -> None:
    error = await world.fails("FORGOTTEN", Unavailable)
    assert "results are kept for 7 days" in str(error)
    assert (error.charged, world.payments.states) == (True, [SETTLED])


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("EXPIRED", "answers with HTTP status 404"),
        ("INTERNAL", "is not on the public internet"),
        ("NOPICTURE", "is a web page"),
    ],
)
async def test_an_output_that_cannot_be_had_is_told_as_charged_and_can_be_fetched_later(
    world: World, prompt: str, told: str
) -> None:
    world.client._backend.lookup = lookup_literally  # type: ignore[union-attr]
    error = await world.fails(prompt, Unavailable)
    assert told in str(error)
    assert (error.charged, world.payments.states) == (True, [SETTLED])
    world.fake.predictions[world.fake.charged[0]]["words"] = []
    result = await world.draw(prompt)
    assert (len(result.images), len(world.fake.submissions)) == (1, 1)


async def lookup_literally(host: str, port: int) -> list[str]:
    return [host if host[0].isdigit() else PUBLIC]


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


async def test_no_more_pictures_a_minute_are_submitted_than_the_tier_allows(world: World) -> None:
    await world.draw(num_images=4)
    assert world.clock.slept[0] == 60.0
    assert len(world.fake.charged) == 4


async def test_who_would_wait_too_long_for_a_turn_is_told_when_to_come_back(world: World) -> None:
    world.client = world.another_client(wavespeed_timeout_s=30)
    await world.draw(num_images=2)
    waited = world.clock.now - 1000
    world.payments = MemoryPayments()
    error = await world.fails("waving", Overloaded)
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 60 - waited
    assert world.payments.history == []


async def test_after_too_many_requests_the_next_waits_until_it_may(world: World) -> None:
    error = await world.fails("SUBMIT429 RETRYAFTER", Overloaded)
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 7.0
    await world.draw()  # the same prediction again: its payment was released
    assert world.clock.slept[0] == 7.0
    assert world.payments.states == [SETTLED]


async def test_a_failure_of_one_picture_leaves_the_others_settled_and_says_so(
    world: World,
) -> None:
    world.client = world.another_client(wavespeed_per_minute=10)
    fail_second = world.fake._result

    def result(name: str) -> Any:
        words = ["FAILED"] if name == world.fake.charged[1] else []
        world.fake.predictions[name]["words"] = words
        return fail_second(name)

    world.fake._result = result  # type: ignore[method-assign]
    error = await world.fails("waving", Unavailable, num_images=3)
    assert "failed to make picture 2" in str(error)
    assert "Charged so far: picture 1 (" in str(error)
    assert "picture 3 (" in str(error)
    assert world.payments.states == [SETTLED] * 3


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
    )
    assert result.warnings == (
        "WaveSpeed's hosted model has no negative_prompt: 'rain' was ignored.",
        "WaveSpeed's hosted model has no guidance_scale: 2.0 was ignored.",
        "WaveSpeed's hosted model has no num_inference_steps: 9 was ignored.",
        "WaveSpeed's hosted model has no enable_safety_checker: False was ignored.",
        "WaveSpeed's hosted model has no subject_scale: 1.0 was ignored.",
        "WaveSpeed's hosted model has no true_cfg_scale: 2.0 was ignored.",
    )


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


@pytest.mark.parametrize("state", [SUBMITTED, SETTLED])
async def test_what_an_earlier_attempt_submitted_is_polled_and_only_the_rest_is_submitted(
    world: World, state: PaymentState
) -> None:
    await world.draw()
    world.payments.payments[0] = Payment(0, "wavespeed", state, 0.1, world.fake.charged[0])
    result = await world.draw(num_images=2)
    assert [inputs["seed"] for inputs in world.fake.submissions] == [7, 8]
    assert [opened(result, i).getpixel((0, 0))[0] for i in (0, 1)] == [7, 8]  # type: ignore[index]
    assert (result.cost_usd, world.payments.states) == (0.2, [SETTLED, SETTLED])


async def test_the_seed_that_a_cut_off_attempt_drew_is_told_as_unknown(world: World) -> None:
    await world.draw(seed=-1)
    result = await world.draw(seed=-1)
    assert (result.images[0].seed, len(world.fake.submissions)) == (-1, 1)
    assert "The seed of picture 1 is not known" in result.warnings[0]


@pytest.mark.parametrize("state", [SUBMITTING, UNKNOWN])
async def test_what_an_earlier_attempt_lost_is_never_sent_again(
    world: World, state: PaymentState
) -> None:
    world.payments = MemoryPayments(10, Payment(0, "wavespeed", state, 0.1))
    error = await world.fails("waving", MaybeCharged)
    assert "asked for picture 1, and its answer was lost" in str(error)
    assert (world.payments.states, world.fake.calls) == ([UNKNOWN], [])


async def test_the_payments_of_other_clients_are_left_alone(world: World) -> None:
    world.payments = MemoryPayments(10, Payment(1, "other", SUBMITTING, 0.1))
    await world.draw()
    assert world.payments.states == [SETTLED, SUBMITTING]


async def test_cancelling_during_the_paid_request_waits_until_its_end_is_written(
    world: World,
) -> None:
    task = asyncio.create_task(world.draw("SLOW"))
    while not world.fake.charged:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert world.payments.states == [UNKNOWN]


async def test_cancelling_while_the_cap_is_checked_sends_nothing(world: World) -> None:
    reserve = world.payments.reserve

    async def cancelled_meanwhile(index: int, client: str, price_usd: float) -> None:
        await reserve(index, client, price_usd)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    world.payments.reserve = cancelled_meanwhile  # type: ignore[method-assign]
    task = asyncio.create_task(world.draw())
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert (world.payments.states, world.fake.submissions) == ([RELEASED], [])


async def test_cancelling_while_polling_stops_at_once_and_can_be_resumed(world: World) -> None:
    stuck = asyncio.Event()

    async def forever(seconds: float) -> None:
        stuck.set()
        await asyncio.Event().wait()

    sleeping = world.client._sleep
    world.client._sleep = forever
    task = asyncio.create_task(world.draw())
    await asyncio.wait_for(stuck.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert world.payments.states == [SUBMITTED]
    world.client._sleep = sleeping
    assert len((await world.draw()).images) == len(world.fake.submissions) == 1


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


async def test_many_requests_at_once_pay_once_each(world: World) -> None:
    world.client = world.another_client(wavespeed_per_minute=100)
    accounts = [MemoryPayments() for _ in range(20)]
    prompts = ["waving", "LOST", "FAILED", "POLL503", "SUBMIT429"] * 4

    async def one(prompt: str, payments: MemoryPayments) -> object:
        request = GenerateRequest.parse({"prompt": prompt, "image": "-", "size": "512*512"})
        try:
            return await world.client.generate(request, REFERENCE, payments=payments)
        except CastmateError as error:
            return error

    pay: Callable[..., Any] = asyncio.gather
    with anyio.fail_after(20):
        await pay(*map(one, prompts, accounts))
        before = len(world.fake.charged)
        await pay(*map(one, prompts, accounts))
    assert before == 16
    assert len(world.fake.charged) == 16
    counted = [p for account in accounts for p in account.states if p is not RELEASED]
    assert len(counted) == 16
