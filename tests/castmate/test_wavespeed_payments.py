"""Nothing is paid twice, unasked, too fast or without being recorded first."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from PIL import Image

from castmate.clients.payments import Payment, PaymentState
from castmate.errors import (
    BudgetExceeded,
    CastmateError,
    MaybeCharged,
    Overloaded,
    Unavailable,
)
from castmate.schema import GenerateRequest, GenerateResult
from tests.doubles import MemoryPayments
from tests.fakes.world import REFERENCE, World

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

SUBMITTING, SUBMITTED, SETTLED, RELEASED, UNKNOWN = PaymentState


def opened(result: GenerateResult, index: int = 0) -> Image.Image:
    return Image.open(io.BytesIO(result.images[index].data))


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


@pytest.mark.parametrize(
    ("state", "remote_id"), [(SUBMITTING, None), (UNKNOWN, None), (UNKNOWN, "remote")]
)
async def test_what_an_earlier_attempt_lost_is_never_sent_again(
    world: World, state: PaymentState, remote_id: str | None
) -> None:
    world.payments = MemoryPayments(10, Payment(0, "wavespeed", state, 0.1, remote_id))
    error = await world.fails("waving", MaybeCharged)
    assert "asked for picture 1, but its reply was lost" in str(error)
    assert (world.payments.states, world.fake.calls) == ([UNKNOWN], [])


async def test_the_payments_of_other_clients_are_left_alone(world: World) -> None:
    world.payments = MemoryPayments(10, Payment(1, "other", SUBMITTING, 0.1))
    await world.draw()
    assert world.payments.states == [SETTLED, SUBMITTING]


async def test_cancelling_during_the_paid_request_waits_until_its_end_is_written(
    world: World,
) -> None:
    world.client = world.another_client(submit_timeout_s=0.2)
    task = asyncio.create_task(world.draw("SLOW"))
    while not world.fake.charged:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)
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
        await asyncio.wait_for(task, 30)
    assert (world.payments.states, world.fake.submissions) == ([RELEASED], [])


async def test_cancelling_while_polling_stops_at_once_and_can_be_resumed(world: World) -> None:
    stuck = asyncio.Event()

    async def forever(seconds: float) -> None:
        stuck.set()
        await asyncio.Event().wait()

    sleeping = world.client._sleep
    world.client._sleep = forever
    task = asyncio.create_task(world.draw())
    await asyncio.wait_for(stuck.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)
    assert world.payments.states == [SUBMITTED]
    world.client._sleep = sleeping
    assert len((await world.draw()).images) == len(world.fake.submissions) == 1


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
    with anyio.fail_after(60):
        await pay(*map(one, prompts, accounts))
        before = len(world.fake.charged)
        await pay(*map(one, prompts, accounts))
    assert before == 16
    assert len(world.fake.charged) == 16
    counted = [p for account in accounts for p in account.states if p is not RELEASED]
    assert len(counted) == 16


class FlakyPayments(MemoryPayments):
    """A ledger that cannot be reached for some writes after the reservation."""

    def __init__(self, failing: range) -> None:
        super().__init__()
        self.failing, self.moves = failing, 0

    async def move(self, *args: Any) -> None:
        self.moves += 1
        if self.moves - 1 in self.failing:
            raise Unavailable("The ledger cannot be written.")
        await super().move(*args)


async def test_a_ledger_that_is_away_for_a_moment_is_waited_for(world: World) -> None:
    world.payments = FlakyPayments(range(3))
    result = await world.draw()
    assert (result.cost_usd, world.payments.states) == (0.1, [SETTLED])
    assert len(world.fake.submissions) == 1


async def test_a_prediction_that_cannot_be_written_down_is_named_and_nobody_pays_again(
    world: World,
) -> None:
    world.payments = FlakyPayments(range(100))
    error = await world.fails("waving", MaybeCharged)
    assert f"WaveSpeed is making it as prediction {world.fake.charged[0]}" in str(error)
    await world.fails("waving", MaybeCharged)  # although that cannot be written either
    assert len(world.fake.submissions) == 1


async def test_a_picture_is_not_lost_because_its_settling_cannot_be_written(world: World) -> None:
    world.payments = FlakyPayments(range(1, 100))
    assert len((await world.draw()).images) == 1
    assert world.payments.states == [SUBMITTED]


class Crash(BaseException):
    """The process dies."""


class CrashingPayments(MemoryPayments):
    """What is written stays; at one of its writes, before or after it, the process dies."""

    def __init__(self, at: int, written: bool) -> None:
        super().__init__()
        self.at, self.written, self.writes = at, written, 0

    async def reserve(self, *args: Any) -> None:
        await self.maybe(super().reserve(*args))

    async def move(self, *args: Any) -> None:
        await self.maybe(super().move(*args))

    async def maybe(self, write: Coroutine[Any, Any, None]) -> None:
        self.writes += 1
        if self.writes == self.at and not self.written:
            write.close()
            raise Crash
        await write
        if self.writes == self.at:
            raise Crash


@pytest.mark.parametrize("prompt", ["waving", "LOST", "FAILED", "SUBMIT429"])
@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("at", range(1, 7))
async def test_wherever_a_process_dies_the_next_one_pays_no_picture_twice(
    world: World, prompt: str, written: bool, at: int
) -> None:
    world.client = world.another_client(wavespeed_per_minute=100)
    crashing = CrashingPayments(at, written)
    world.payments = crashing
    outcomes: list[object] = []
    for _ in range(3):
        try:
            outcomes.append(await world.draw(prompt, num_images=2))
        except (CastmateError, Crash) as error:
            outcomes.append(error)
    sent = [inputs["seed"] for inputs in world.fake.submissions]
    charged = [world.fake.predictions[name]["inputs"]["seed"] for name in world.fake.charged]
    assert len(charged) == len(set(charged))
    if prompt != "SUBMIT429":  # a refusal costs nothing, so another attempt may ask again
        assert len(sent) == len(set(sent))
    states = crashing.states
    counted = [state for state in states if state not in (RELEASED, SUBMITTING)]
    assert len(counted) >= len(charged), "what is charged counts against the caps"
    if prompt == "waving" and not isinstance(outcomes[-1], GenerateResult):
        assert isinstance(outcomes[-1], MaybeCharged)
        assert UNKNOWN in states
