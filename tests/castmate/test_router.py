"""Several clients behave as one: the next is asked only where that can help, and it is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from castmate.clients.base import Progress
from castmate.clients.payments import Payment, PaymentState
from castmate.errors import (
    BudgetExceeded,
    BundleMismatch,
    Cancelled,
    CastmateError,
    DeadlineExceeded,
    ImageRejected,
    Incapable,
    InvalidRequest,
    MaybeCharged,
    Overloaded,
    Problem,
    Unavailable,
)
from castmate.schema import GenerateResult
from tests.castmate.routes import CAPPED, DOWN, draw, failure, named, route
from tests.doubles import FakeClock, FlatClient, MemoryPayments, StuckClient

pytestmark = pytest.mark.anyio


async def test_the_first_client_makes_it_and_nobody_else_is_asked() -> None:
    first, second = named("local"), named("wavespeed")
    result = await draw(route(first, second))
    assert (result.client, result.warnings, second.requests) == ("local", (), [])


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("It is down."),
        Overloaded("It is full.", retry_after_s=3),
        DeadlineExceeded("It took too long."),
        BudgetExceeded("The cap is reached."),
        BundleMismatch("Made for another GPU."),
        Incapable("It has no matte."),
    ],
    ids=lambda error: error.code,
)
async def test_after_a_named_error_the_next_client_makes_it_and_the_result_tells_both(
    error: CastmateError,
) -> None:
    failing, next_one = named("local", error=error), named("triton", warnings=("It was cut.",))
    result = await draw(route(failing, next_one))
    assert result.warnings == (
        f"local could not make it: {error}",
        "triton made it instead.",
        "It was cut.",
    )


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest([Problem("size", "too odd")]),
        ImageRejected("is a video"),
        MaybeCharged("Its reply was lost."),
        Cancelled("Stopped."),
        CastmateError("Something else."),
        ZeroDivisionError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_after_any_other_error_nobody_else_is_asked(error: Exception) -> None:
    second = named("wavespeed")
    with pytest.raises(type(error)) as caught:
        await draw(route(named("local", error=error), second))
    assert caught.value is error
    assert second.requests == []


async def test_when_all_fail_one_error_tells_every_cause() -> None:
    causes = {"local": Unavailable("It is down."), "triton": BundleMismatch("Other GPU.")}
    error = await failure(route(*(named(name, error=e) for name, e in causes.items())))
    assert type(error) is Unavailable
    assert str(error) == ("No client could make the picture. local: It is down. triton: Other GPU.")
    assert error.as_dict()["causes"]["triton"]["code"] == "bundle_mismatch"
    assert error.charged is False


LATE = DeadlineExceeded("Late.")


@pytest.mark.parametrize(
    ("causes", "kind"),
    [
        ((Overloaded("F.", retry_after_s=9), DOWN, Overloaded("F.", retry_after_s=4)), Overloaded),
        ((Overloaded("F.", retry_after_s=4), CAPPED), Overloaded),
        ((DOWN, LATE, CAPPED), BudgetExceeded),
        ((LATE, DOWN), DeadlineExceeded),
        ((DOWN, DOWN), Unavailable),
    ],
)
async def test_the_one_error_is_of_the_kind_that_tells_what_to_do(
    causes: tuple[CastmateError, ...], kind: type[CastmateError]
) -> None:
    error = await failure(route(*(named(f"c{i}", error=e) for i, e in enumerate(causes))))
    assert type(error) is kind
    assert error.charged is False
    if isinstance(error, Overloaded):
        assert error.as_dict()["retry_after_s"] == 4
    if CAPPED in causes:
        assert "Nothing was charged." in str(error)


async def test_what_one_cause_has_charged_the_one_error_says() -> None:
    for charged, expected in ((True, True), (None, None)):
        paid = Unavailable("Its file is gone.")
        paid.charged = charged
        error = await failure(route(named("wavespeed", error=paid), named("local", error=DOWN)))
        assert error.charged is expected


async def test_a_client_alone_tells_its_own_error() -> None:
    error = BundleMismatch("Made for another GPU.")
    assert await failure(route(named("local", error=error))) is error


async def test_a_client_gets_its_share_of_the_time_and_the_last_one_the_rest() -> None:
    stuck, last = named("local", StuckClient()), named("wavespeed")
    result = await draw(route(stuck, last, deadline_s=50, client_share=0.001))
    assert "local could not make it: It did not finish within 0.05 s." in result.warnings[0]
    assert stuck.cancelled.is_set()  # type: ignore[attr-defined]


async def test_over_all_clients_the_deadline_holds() -> None:
    router = route(named("local", StuckClient()), named("triton", StuckClient()), deadline_s=0.1)
    error = await failure(router)
    assert type(error) is DeadlineExceeded
    assert "local: It did not finish" in str(error)
    assert "triton: It did not finish" in str(error)


async def test_who_has_no_time_left_is_not_asked() -> None:
    clock = FakeClock()

    class Slow(FlatClient):
        async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
            clock.now += 6
            raise Unavailable("It gave up late.")

    last = named("wavespeed")
    error = await failure(route(named("local", Slow()), last, clock=clock, deadline_s=5))
    assert "wavespeed: No time was left for it." in str(error)
    assert last.requests == []


async def test_cancelling_reaches_the_client_and_nobody_else_is_asked() -> None:
    stuck, second = StuckClient(), named("wavespeed")
    task = asyncio.create_task(draw(route(named("local", stuck), second)))
    await asyncio.wait_for(stuck.started.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert stuck.cancelled.is_set()
    assert second.requests == []


async def test_who_was_paid_in_an_earlier_attempt_is_asked_first() -> None:
    def paid(state: PaymentState) -> MemoryPayments:
        return MemoryPayments(1.0, Payment(0, "wavespeed", state, 0.1, "remote"))

    router = route(named("local"), named("wavespeed"))
    for state, client in {
        PaymentState.SUBMITTED: "wavespeed",
        PaymentState.SETTLED: "wavespeed",
        PaymentState.RELEASED: "local",
        PaymentState.SUBMITTING: "local",  # it could only say that the reply was lost
        PaymentState.UNKNOWN: "local",
    }.items():
        assert (await draw(router, payments=paid(state))).client == client


async def test_who_could_only_say_that_a_reply_was_lost_is_not_asked_first() -> None:
    payments = MemoryPayments(
        1.0,
        Payment(0, "wavespeed", PaymentState.SUBMITTED, 0.1, "remote"),
        Payment(1, "wavespeed", PaymentState.SUBMITTING, 0.1),
    )
    router = route(named("local"), named("wavespeed"))
    assert (await draw(router, payments=payments)).client == "local"


async def test_progress_comes_from_the_client_that_draws() -> None:
    seen: list[Progress] = []
    await draw(route(named("local")), on_progress=seen.append)
    assert [progress.step for progress in seen] == [0, 1, 2]
