"""Several clients behave as one: the next is asked only where that can help, and it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from castmate import router as routing
from castmate.breaker import BreakerState
from castmate.clients.base import Client, Progress
from castmate.clients.payments import Payment, PaymentState
from castmate.errors import (
    BudgetExceeded,
    BundleMismatch,
    Cancelled,
    CastmateError,
    DeadlineExceeded,
    ImageRejected,
    InvalidRequest,
    MaybeCharged,
    Overloaded,
    Problem,
    SettingsError,
    Unavailable,
)
from castmate.images import Reference
from castmate.router import Router, open_clients
from castmate.schema import GenerateRequest, GenerateResult
from castmate.settings import Settings
from tests.doubles import FakeClock, FlatClient, MemoryPayments, StuckClient, picture

pytestmark = pytest.mark.anyio

REQUEST = GenerateRequest.parse(
    {"prompt": "waving", "image": "-", "size": "512*512", "seed": 7, "num_inference_steps": 2}
)
REFERENCE = Reference.from_bytes(picture(), "fox.png")


def named(name: str, client: FlatClient | None = None, **options: Any) -> FlatClient:
    made = client or FlatClient(**options)
    made.name = name
    return made


def route(*clients: FlatClient, **options: Any) -> Router:
    openers: dict[str, Callable[[], Client]] = {
        client.name: lambda client=client: client  # type: ignore[misc]
        for client in clients
    }
    router = Router(openers, **{"deadline_s": 60.0} | options)
    router.open()
    return router


async def draw(router: Router, **options: Any) -> GenerateResult:
    with anyio.fail_after(60):
        return await router.generate(REQUEST, REFERENCE, **options)


async def failure(router: Router, **options: Any) -> CastmateError:
    with pytest.raises(CastmateError) as caught:
        await draw(router, **options)
    return caught.value


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


DOWN, LATE = Unavailable("Down."), DeadlineExceeded("Late.")
CAPPED = BudgetExceeded("$0.10 would pass the cap. Nothing was charged.")


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
    for charged, told in ((True, True), (None, None)):
        paid = Unavailable("Its file is gone.")
        paid.charged = charged
        error = await failure(route(named("wavespeed", error=paid), named("local", error=DOWN)))
        assert error.charged is told


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


async def test_what_keeps_failing_is_left_alone_and_asked_again_after_a_while() -> None:
    clock = FakeClock()
    failing, second = named("local", error=DOWN), named("triton")
    router = route(failing, second, clock=clock, cooldown_s=10)
    for _ in range(5):
        await draw(router)
    result = await draw(router)
    assert len(failing.requests) == 5
    assert "left alone for another 10 s. Last: Down." in result.warnings[0]
    assert router.status()[0].breaker is BreakerState.OPEN
    clock.now += 10
    failing._error = None
    assert (await draw(router)).client == "local"
    assert router.status()[0].breaker is BreakerState.CLOSED


class Gate(FlatClient):
    """A client whose calls wait until they are let through."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(error)
        self.opened = asyncio.Event()
        self.entered = asyncio.Event()
        self.calls = 0

    async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
        self.calls += 1
        self.entered.set()
        await self.opened.wait()
        return await super().generate(*args, **kwargs)


async def half_open(gate: Gate) -> tuple[Router, FlatClient, FakeClock]:
    """A router whose first client has failed often, and may be tried again."""
    clock, second = FakeClock(), named("triton")
    gate.opened.set()
    gate._error = DOWN
    router = route(named("local", gate), second, clock=clock, cooldown_s=10)
    for _ in range(5):
        await draw(router)
    gate.opened.clear()
    gate.entered.clear()
    gate._error, gate.calls = None, 0
    clock.now += 10
    return router, second, clock


async def test_of_fifty_callers_one_tries_the_client_that_failed_and_all_get_their_picture() -> (
    None
):
    gate = Gate()
    router, _, _ = await half_open(gate)
    tasks = [asyncio.create_task(draw(router)) for _ in range(50)]
    others, _ = await asyncio.wait(tasks, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    while len(others) < 49:
        await asyncio.sleep(0)
        others = {task for task in tasks if task.done()}
    assert gate.calls == 1
    gate.opened.set()
    results = await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert sorted(result.client for result in results) == ["local", *["triton"] * 49]


async def test_a_cancelled_probe_lets_the_next_caller_try() -> None:
    gate = Gate()
    router, _, _ = await half_open(gate)
    probe = asyncio.create_task(draw(router))
    await asyncio.wait_for(gate.entered.wait(), 5)
    probe.cancel()
    await asyncio.wait([probe], timeout=5)
    gate.opened.set()
    assert (await draw(router)).client == "local"
    assert gate.calls == 2


async def test_a_bad_request_or_a_full_queue_does_not_make_a_client_look_broken() -> None:
    bad = InvalidRequest([Problem("size", "too odd")])
    for error in (bad, Overloaded("Full.", retry_after_s=1), CAPPED):
        router = route(named("local", error=error), named("triton", error=error))
        for _ in range(8):
            await failure(router)
        assert router.status()[0].breaker is BreakerState.CLOSED


async def test_slow_counts_as_failure_only_where_there_is_another_client() -> None:
    clock = FakeClock()

    class Slow(FlatClient):
        async def generate(self, *args: Any, **kwargs: Any) -> GenerateResult:
            clock.now += 3
            return await super().generate(*args, **kwargs)

    for others, clients in (((named("triton"),), ["triton"]), ((), ["local"])):
        router = route(named("local", Slow()), *others, clock=clock, slow_s=2)
        made = [(await draw(router)).client for _ in range(6)]
        assert made == ["local"] * 5 + clients


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


async def test_a_client_that_cannot_be_opened_is_unavailable_and_opened_once_it_can() -> None:
    broken = True

    def opener() -> Client:
        if broken:
            raise BundleMismatch("Made for another GPU.")
        return named("local")

    router = Router({"local": opener, "triton": lambda: named("triton")}, deadline_s=60)
    router.open()
    assert [(s.name, s.up, s.last_error) for s in router.status()] == [
        ("local", False, "Made for another GPU."),
        ("triton", True, ""),
    ]
    result = await draw(router)
    assert result.warnings[0] == "local could not make it: Made for another GPU."
    broken = False
    assert (await draw(router)).client == "local"
    assert router.status()[0].up


async def test_a_client_is_opened_once_for_all_who_wait_for_it() -> None:
    opened = []

    def opener() -> Client:
        opened.append(named("local"))
        return opened[-1]

    router = Router({"local": opener}, deadline_s=60)
    await asyncio.gather(*(draw(router) for _ in range(5)))
    assert len(opened) == 1
    await router.aclose()
    assert opened[0].closed


async def test_closing_closes_every_client() -> None:
    clients = [named("local"), named("triton")]
    await route(*clients).aclose()
    assert all(client.closed for client in clients)


@pytest.fixture
def quick_local(monkeypatch: pytest.MonkeyPatch, own_folder: object) -> FlatClient:
    local = named("local")
    openers = dict(routing._OPENERS) | {"local": lambda settings: local}
    monkeypatch.setattr(routing, "_OPENERS", openers)
    return local


async def test_clients_come_from_the_settings_and_those_not_set_up_are_told(
    quick_local: FlatClient,
) -> None:
    router = open_clients(Settings.load())
    assert (router.status()[0].name, router.status()[0].up) == ("local", True)
    (wavespeed,) = [status for status in router.status() if status.name == "wavespeed"]
    assert (wavespeed.up, wavespeed.last_error) == (
        False,
        "CASTMATE_WAVESPEED_API_KEY is not set",
    )
    assert (await draw(router)).client == "local"
    await router.aclose()


async def test_with_a_key_the_hosted_model_is_the_last_resort_in_the_order_of_the_settings(
    quick_local: FlatClient,
) -> None:
    settings = Settings.load(clients="wavespeed, local", wavespeed_api_key="wsk_x")
    router = open_clients(settings)
    assert [status.name for status in router.status()] == ["wavespeed", "local"]
    result = await draw(router)  # nobody keeps account here, so nothing may be paid
    assert result.client == "local"
    assert "wavespeed could not make it: WaveSpeed costs money" in result.warnings[0]
    await router.aclose()


def test_when_no_client_is_set_up_the_variable_is_named(own_folder: object) -> None:
    with pytest.raises(SettingsError, match=r"CASTMATE_CLIENTS .*WAVESPEED_API_KEY is not set"):
        open_clients(Settings.load(clients="wavespeed"))
