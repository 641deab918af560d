"""Every bad day of the hosted service ends as one clear error that says what was charged."""

from __future__ import annotations

from typing import Any

import pytest

from castmate.clients.payments import PaymentState
from castmate.errors import (
    CastmateError,
    DeadlineExceeded,
    InvalidRequest,
    MaybeCharged,
    Overloaded,
    Unavailable,
)
from tests.doubles import MemoryPayments
from tests.fakes.http import PUBLIC
from tests.fakes.wavespeed import FOUR, FakeWaveSpeed
from tests.fakes.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

SUBMITTING, SUBMITTED, SETTLED, RELEASED, UNKNOWN = PaymentState


@pytest.mark.parametrize(
    ("prompt", "kind", "expected"),
    [
        ("SUBMIT400", InvalidRequest, "WaveSpeed's hosted model refuses it: told *** so"),
        ("SUBMIT401", Unavailable, "Check CASTMATE_WAVESPEED_API_KEY. Its message: told *** so."),
        ("SUBMIT402", Unavailable, "out of funds. Top it up."),
        ("SUBMIT403", Unavailable, "A key works after the account's first top-up."),
        ("SUBMIT403HTML", Unavailable, "A key works after the account's first top-up."),
        ("SUBMIT404", Unavailable, "Check CASTMATE_WAVESPEED_MODEL."),
        ("SUBMIT413", InvalidRequest, "refuses it"),
        ("SUBMIT429", Overloaded, "Try again in 60 s, or raise the account's tier."),
        ("SUBMIT503", Unavailable, "refused the request (HTTP status 503). Try again later."),
        ("REDIRECT", Unavailable, "Check CASTMATE_WAVESPEED_BASE_URL."),
        ("ENVELOPE400", InvalidRequest, "`guidance_scale`: WaveSpeed's hosted model refuses it"),
    ],
)
async def test_a_refused_submission_is_told_released_and_not_sent_again(
    world: World, prompt: str, kind: type[CastmateError], expected: str
) -> None:
    error = await world.fails(prompt, kind)
    assert expected in str(error)
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
    if prompt == "SLOW":
        world.client = world.another_client(submit_timeout_s=0.2)
    error = await world.fails(prompt, MaybeCharged)
    assert "It may have charged $0.10. Castmate does not ask again by itself" in str(error)
    assert error.charged is None
    assert world.payments.history == [(0, SUBMITTING), (0, UNKNOWN)]
    assert len(world.fake.submissions) == 1
    again = await world.fails(prompt, MaybeCharged)  # another attempt of the same prediction
    assert "the attempt that asked for it ended before it was recorded" in str(again)
    assert len(world.fake.submissions) == 1


async def test_a_service_that_is_down_was_never_asked(world: World) -> None:
    await world.draw()  # schema, price and upload are known from now on
    world.payments = MemoryPayments()
    client = world.client
    async with FakeWaveSpeed().running() as dead:
        pass
    client._api._http.base_url = f"http://127.0.0.1:{dead}"  # type: ignore[union-attr]
    error = await world.fails("waving", Unavailable)
    assert "WaveSpeed cannot be reached (connect error" in str(error)
    assert (error.charged, world.payments.states) == (False, [RELEASED])


@pytest.mark.parametrize(
    "prompt",
    ["POLL503", "POLL429", "POLLHTML", "POLL500", "POLLDROP", "POLLSLOW", "POLLNULL", "POLL404"],
)
async def test_trouble_while_polling_is_sat_out(world: World, prompt: str) -> None:
    if prompt == "POLLSLOW":
        world.client = world.another_client(read_timeout_s=0.2)
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
    ("prompt", "kind", "expected"),
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
    world: World, prompt: str, kind: type[CastmateError], expected: str
) -> None:
    error = await world.fails(prompt, kind)
    assert expected in str(error)
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
    again = await world.fails("FORGOTTEN", Unavailable)
    assert (str(again), len(world.fake.submissions)) == (str(error), 1)
    assert "it keeps results for 7 days" in str(error)
    assert (error.charged, world.payments.states) == (True, [SETTLED])


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("EXPIRED", "answers with HTTP status 404"),
        ("INTERNAL", "is not on the public internet"),
        ("NOPICTURE", "is a web page"),
    ],
)
async def test_an_output_that_cannot_be_had_is_told_as_charged_and_can_be_fetched_later(
    world: World, prompt: str, expected: str
) -> None:
    world.client._backend.lookup = lookup_literally  # type: ignore[union-attr]
    error = await world.fails(prompt, Unavailable)
    assert expected in str(error)
    assert (error.charged, world.payments.states) == (True, [SETTLED])
    world.fake.predictions[world.fake.charged[0]]["words"] = []
    result = await world.draw(prompt)
    assert (len(result.images), len(world.fake.submissions)) == (1, 1)


async def lookup_literally(host: str, port: int) -> list[str]:
    return [host if host[0].isdigit() else PUBLIC]


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


async def test_a_key_that_is_revoked_meanwhile_does_not_hide_what_was_paid(world: World) -> None:
    error = await world.fails("POLL401", Unavailable)
    assert "HTTP status 401 (this key was revoked)" in str(error)
    assert "Charged so far: picture 1" in str(error)
    assert "Nothing" not in str(error)
    assert (error.charged, world.payments.states) == (True, [SUBMITTED])


async def test_what_was_refused_after_something_was_paid_says_both(world: World) -> None:
    await world.draw()
    world.fake.takes = FOUR  # from now on it refuses the older parameters
    error = await world.fails("waving", InvalidRequest, num_images=2, num_inference_steps=9)
    assert "unknown field" in str(error)
    assert f"Charged so far: picture 1 (prediction {world.fake.charged[0]})" in str(error)
    assert (error.charged, world.payments.states) == (True, [SETTLED, RELEASED])
