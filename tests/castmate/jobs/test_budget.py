"""No cap is passed and nothing is paid twice: not at once, not after a crash, not by a zombie."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from castmate.clients.payments import Payment, PaymentState
from castmate.errors import BudgetExceeded, Cancelled, LeaseLost, MaybeCharged, Unavailable
from castmate.jobs.budget import Budget, Caps, LedgerPayments
from castmate.jobs.claims import Claim, Claims
from castmate.jobs.database import Database
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from tests.castmate.jobs.conftest import Clock, Submit

pytestmark = pytest.mark.anyio


@pytest.fixture
def claim(claims: Claims, submit: Submit) -> Callable[..., Any]:
    """Submits a prediction and claims it."""

    async def make(**options: Any) -> Claim:
        await submit(**options)
        (claim,) = await claims.claim("me", 1)
        return claim

    return make


@pytest.fixture
async def pay(database: Database, claim: Callable[..., Any]) -> LedgerPayments:
    return Budget(database, Caps(per_prediction=1.0)).payments(await claim())


async def test_what_one_attempt_wrote_the_next_one_knows(
    database: Database, claims: Claims, pay: LedgerPayments, clock: Clock
) -> None:
    await pay.reserve(0, "wavespeed", 0.1)
    await pay.reserve(1, "wavespeed", 0.1)
    await pay.move(0, PaymentState.SUBMITTED, "abc")
    clock.now += 11
    await claims.recover()
    (second,) = await claims.claim("survivor", 1)
    assert await Budget(database).payments(second).known() == [
        Payment(0, "wavespeed", PaymentState.SUBMITTED, 0.1, "abc"),
        Payment(1, "wavespeed", PaymentState.SUBMITTING, 0.1),
    ]


async def test_payments_survive_a_restart(
    database: Database, database_url: str, pay: LedgerPayments
) -> None:
    await pay.reserve(0, "wavespeed", 0.1)
    await database.aclose()
    again = await open_database(database_url)
    (spent,) = await Budget(again).spending()
    await again.aclose()
    assert spent.payment == Payment(0, "wavespeed", PaymentState.SUBMITTING, 0.1)
    assert (spent.key_name, spent.day, spent.counts) == ("local", "2027-01-15", True)


@pytest.mark.parametrize(
    "state", [state for state in PaymentState if state is not PaymentState.RELEASED]
)
async def test_a_picture_that_may_be_charged_is_never_reserved_again(
    pay: LedgerPayments, state: PaymentState
) -> None:
    await pay.reserve(0, "wavespeed", 0.1)
    await pay.move(0, state, "abc")
    with pytest.raises(MaybeCharged, match=r"Picture 1 .* as abc; it is not submitted again"):
        await pay.reserve(0, "wavespeed", 0.1)
    assert [payment.state for payment in await pay.known()] == [state]


async def test_a_released_picture_may_be_tried_again_by_another_client(pay: LedgerPayments) -> None:
    await pay.reserve(0, "wavespeed", 0.1)
    await pay.move(0, PaymentState.RELEASED)
    await pay.reserve(0, "other", 0.2)
    assert await pay.known() == [Payment(0, "other", PaymentState.SUBMITTING, 0.2)]


async def test_a_payment_never_moves_backwards_and_keeps_its_remote_id(pay: LedgerPayments) -> None:
    await pay.reserve(0, "wavespeed", 0.1)
    await pay.move(0, PaymentState.SUBMITTED, "abc")
    await pay.move(0, PaymentState.SETTLED)
    await pay.move(0, PaymentState.SUBMITTED, "def")
    assert await pay.known() == [Payment(0, "wavespeed", PaymentState.SETTLED, 0.1, "abc")]


async def test_moving_what_was_not_reserved_is_a_bug_of_the_client(pay: LedgerPayments) -> None:
    with pytest.raises(LookupError, match="picture 3"):
        await pay.move(3, PaymentState.SUBMITTED, "abc")


@pytest.mark.parametrize("price", [-0.1, float("nan"), float("inf")])
async def test_a_price_that_is_none_is_a_bug_of_the_client(
    pay: LedgerPayments, price: float
) -> None:
    with pytest.raises(ValueError, match="dollars"):
        await pay.reserve(0, "wavespeed", price)


async def test_a_zombie_cannot_reserve(
    claims: Claims, pay: LedgerPayments, database: Database, clock: Clock
) -> None:
    clock.now += 11
    await claims.recover()
    with pytest.raises(LeaseLost, match="Attempt 1"):
        await pay.reserve(0, "wavespeed", 0.1)
    (second,) = await claims.claim("me", 1)
    with pytest.raises(LeaseLost, match="nothing was submitted"):
        await pay.reserve(0, "wavespeed", 0.1)
    await Budget(database).payments(second).reserve(0, "wavespeed", 0.1)


async def test_a_zombie_cannot_release_what_its_successor_reserved(
    claims: Claims, pay: LedgerPayments, database: Database, clock: Clock
) -> None:
    await pay.reserve(0, "wavespeed", 0.1)
    await pay.move(0, PaymentState.RELEASED)
    clock.now += 11
    await claims.recover()
    (claim,) = await claims.claim("survivor", 1)
    successor = Budget(database).payments(claim)
    await successor.reserve(0, "wavespeed", 0.1)
    await pay.move(0, PaymentState.RELEASED)
    assert [payment.state for payment in await successor.known()] == [PaymentState.SUBMITTING]


async def test_a_zombie_still_tells_the_remote_id_that_it_got(
    claims: Claims, pay: LedgerPayments, database: Database, clock: Clock
) -> None:
    await pay.reserve(0, "wavespeed", 0.1)
    clock.now += 11
    await claims.recover()
    (claim,) = await claims.claim("survivor", 1)
    successor = Budget(database).payments(claim)
    await successor.move(0, PaymentState.UNKNOWN)
    await pay.move(0, PaymentState.SUBMITTED, "abc")
    assert await pay.known() == [Payment(0, "wavespeed", PaymentState.UNKNOWN, 0.1, "abc")]


async def test_nothing_is_paid_for_a_prediction_that_someone_cancelled(
    ledger: Ledger, claim: Callable[..., Any]
) -> None:
    held = await claim()
    await ledger.cancel(held.id)
    with pytest.raises(Cancelled, match="nothing was charged"):
        await Budget(ledger.database).payments(held).reserve(0, "wavespeed", 0.1)


async def test_the_cap_of_a_prediction_holds_over_its_pictures_to_the_cent(
    database: Database, claim: Callable[..., Any]
) -> None:
    payments = Budget(database, Caps(per_prediction=0.3)).payments(await claim(num_images=4))
    for picture in range(3):  # three times 0.1 is more than 0.3 in binary fractions
        await payments.reserve(picture, "wavespeed", 0.1)
    message = r"\$0.30 .*CASTMATE_MAX_USD_PER_PREDICTION \(\$0.30\); nothing was sent or charged"
    with pytest.raises(BudgetExceeded, match=message):
        await payments.reserve(3, "wavespeed", 0.1)
    assert len(await payments.known()) == 3


async def test_the_cap_of_a_day_holds_over_all_keys_and_opens_again_at_midnight_utc(
    database: Database, claim: Callable[..., Any], clock: Clock
) -> None:
    budget = Budget(database, Caps(per_day=0.2))
    for name in ("ann", "bob"):
        await budget.payments(await claim(key_name=name)).reserve(0, "wavespeed", 0.1)
    late = budget.payments(await claim(key_name="eve"))
    clock.now += 12 * 3600 - 1
    with pytest.raises(BudgetExceeded, match=r"2027-01-15 \(UTC\).*_PER_DAY.*tomorrow"):
        await late.reserve(0, "wavespeed", 0.1)
    clock.now += 1
    await late.reserve(0, "wavespeed", 0.1)


async def test_the_cap_of_a_key_holds_over_the_days_and_for_this_key_alone(
    database: Database, claim: Callable[..., Any], clock: Clock
) -> None:
    budget = Budget(database, Caps(per_key=0.1))
    await budget.payments(await claim(key_name="ann")).reserve(0, "wavespeed", 0.1)
    clock.now += 5 * 86_400
    with pytest.raises(BudgetExceeded, match=r"by key 'ann'.*_PER_KEY"):
        await budget.payments(await claim(key_name="ann")).reserve(0, "wavespeed", 0.1)
    await budget.payments(await claim(key_name="bob")).reserve(0, "wavespeed", 0.1)


async def test_what_was_released_frees_the_cap_and_what_is_unknown_does_not(
    database: Database, claim: Callable[..., Any]
) -> None:
    budget = Budget(database, Caps(per_day=0.1))
    first = budget.payments(await claim())
    await first.reserve(0, "wavespeed", 0.1)
    await first.move(0, PaymentState.RELEASED)
    second = budget.payments(await claim())
    await second.reserve(0, "wavespeed", 0.1)
    await second.move(0, PaymentState.UNKNOWN)
    with pytest.raises(BudgetExceeded):
        await budget.payments(await claim()).reserve(0, "wavespeed", 0.1)


async def test_a_cap_of_nothing_lets_nothing_through_but_what_is_free(
    database: Database, claim: Callable[..., Any]
) -> None:
    payments = Budget(database, Caps(per_day=0)).payments(await claim())
    with pytest.raises(BudgetExceeded):
        await payments.reserve(0, "wavespeed", 0.000001)
    await payments.reserve(0, "free", 0)


async def test_a_crowd_at_once_in_two_processes_does_not_pass_the_cap(
    database: Database, database_url: str, claims: Claims, submit: Submit, clock: Clock
) -> None:
    await asyncio.gather(*(submit() for _ in range(30)))
    held = await claims.claim("me", 30)
    elsewhere = await open_database(database_url, clock=clock)
    budgets = [Budget(place, Caps(per_day=0.7)) for place in (database, elsewhere)]
    answers = await asyncio.gather(
        *(
            budgets[number % 2].payments(claim).reserve(0, "wavespeed", 0.1)
            for number, claim in enumerate(held)
        ),
        return_exceptions=True,
    )
    await elsewhere.aclose()
    assert answers.count(None) == 7
    assert sum(isinstance(answer, BudgetExceeded) for answer in answers) == 23
    assert len(await budgets[0].spending()) == 7


async def test_a_failure_says_whether_something_was_charged(
    ledger: Ledger, claims: Claims, claim: Callable[..., Any]
) -> None:
    async def charged(state: PaymentState) -> object:
        held = await claim()
        payments = Budget(ledger.database).payments(held)
        await payments.reserve(0, "wavespeed", 0.1)
        await payments.move(0, state)
        await claims.fail(held, Unavailable("No."))
        error = (await ledger.get(held.id)).error
        assert error is not None
        return error["charged"]

    assert await charged(PaymentState.RELEASED) is False
    assert await charged(PaymentState.SETTLED) is True
    assert await charged(PaymentState.UNKNOWN) is None
    assert await charged(PaymentState.SUBMITTED) is None


async def test_spending_is_listed_by_day_and_key(
    database: Database, claim: Callable[..., Any], clock: Clock
) -> None:
    budget = Budget(database)
    for name in ("ann", "bob"):
        await budget.payments(await claim(key_name=name)).reserve(0, "wavespeed", 0.1)
        clock.now += 86_400
    assert [spent.key_name for spent in await budget.spending()] == ["ann", "bob"]
    assert [spent.key_name for spent in await budget.spending(since="2027-01-16")] == ["bob"]
    assert [spent.day for spent in await budget.spending(key_name="ann")] == ["2027-01-15"]
