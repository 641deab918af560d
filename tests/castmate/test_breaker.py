"""What keeps failing is left alone, and exactly one call finds out whether it is back."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from castmate.breaker import MINIMUM, Admission, Breaker, BreakerState
from tests.doubles import FakeClock


def opened(clock: FakeClock, **options: float) -> Breaker:
    breaker = Breaker(**{"cooldown_s": 10.0} | options, clock=clock)
    for _ in range(MINIMUM):
        breaker.record(admitted(breaker), False, 0.1)
    return breaker


def admitted(breaker: Breaker) -> Admission:
    admission = breaker.admit()
    assert admission is not None
    return admission


def half_open() -> tuple[Breaker, FakeClock]:
    clock = FakeClock()
    breaker = opened(clock)
    clock.now += 10
    return breaker, clock


def test_it_opens_when_half_of_the_last_calls_were_bad_and_not_before_there_are_five() -> None:
    breaker = Breaker(cooldown_s=10, clock=FakeClock())
    for good in (False, False, False, False):
        breaker.record(admitted(breaker), good, 0.1)
    assert breaker.state is BreakerState.CLOSED
    breaker.record(admitted(breaker), True, 0.1)
    assert breaker.state is BreakerState.OPEN
    assert breaker.admit() is None


def test_old_calls_are_forgotten() -> None:
    breaker = Breaker(cooldown_s=10, clock=FakeClock())
    for good in (*[True] * 20, *[False] * 9):
        breaker.record(admitted(breaker), good, 0.1)
    assert breaker.state is BreakerState.CLOSED
    breaker.record(admitted(breaker), False, 0.1)
    assert breaker.state is BreakerState.OPEN


def test_open_it_says_how_long_it_stays_so() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.now += 4
    assert breaker.retry_in_s == 6
    assert breaker.admit() is None
    clock.now += 6
    assert (breaker.retry_in_s, breaker.state) == (0, BreakerState.HALF_OPEN)


def test_of_fifty_callers_one_probes() -> None:
    breaker, _ = half_open()
    admissions = [breaker.admit() for _ in range(50)]
    assert len([admission for admission in admissions if admission]) == 1


def test_a_good_probe_closes_it_and_a_bad_one_opens_it_again() -> None:
    breaker, _ = half_open()
    breaker.record(admitted(breaker), True, 0.1)
    assert breaker.state is BreakerState.CLOSED
    breaker, clock = half_open()
    breaker.record(admitted(breaker), False, 0.1)
    assert (breaker.state, breaker.retry_in_s) == (BreakerState.OPEN, 10)
    clock.now += 10
    assert breaker.admit()


def test_a_probe_that_says_nothing_frees_its_place() -> None:
    breaker, _ = half_open()
    breaker.record(admitted(breaker), None, 0.1)
    breaker.record(admitted(breaker), True, 0.1)
    assert breaker.state is BreakerState.CLOSED


def test_a_late_result_of_a_call_admitted_before_a_change_says_nothing() -> None:
    clock = FakeClock()
    breaker = Breaker(cooldown_s=10, clock=clock)
    late = [admitted(breaker) for _ in range(9)]
    for _ in range(MINIMUM):
        breaker.record(admitted(breaker), False, 0.1)
    breaker.record(late.pop(), True, 0.1)
    assert breaker.state is BreakerState.OPEN
    clock.now += 10
    probe = admitted(breaker)
    breaker.record(late.pop(), True, 0.1)
    assert breaker.admit() is None, "the probe is still out"
    breaker.record(probe, True, 0.1)
    for admission in late:
        breaker.record(admission, False, 0.1)
    assert breaker.state is BreakerState.CLOSED


def test_a_slow_success_counts_as_a_failure_and_a_slow_probe_too() -> None:
    clock = FakeClock()
    breaker = Breaker(cooldown_s=10, slow_s=1, clock=clock)
    for _ in range(MINIMUM):
        breaker.record(admitted(breaker), True, 1.1)
    assert breaker.state is BreakerState.OPEN
    clock.now += 10
    breaker.record(admitted(breaker), True, 1.1)
    assert breaker.state is BreakerState.OPEN


class AnyOrder(RuleBasedStateMachine):
    """Calls begin and end in any order, and time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.breaker = Breaker(cooldown_s=10, slow_s=5, clock=self.clock)
        self.out: list[tuple[Admission, bool]] = []

    @rule(seconds=st.sampled_from([0.1, 4.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def call(self) -> None:
        state = self.breaker.state
        admission = self.breaker.admit()
        if state is BreakerState.CLOSED:
            assert admission
        if state is BreakerState.OPEN:
            assert admission is None
        if admission:
            self.out.append((admission, state is not BreakerState.CLOSED))

    @precondition(lambda self: self.out)
    @rule(
        data=st.data(),
        good=st.sampled_from([True, False, False, None]),
        seconds=st.sampled_from([0.1, 6.0]),
    )
    def end(self, data: st.DataObject, good: bool | None, seconds: float) -> None:
        index = data.draw(st.integers(0, len(self.out) - 1))
        before = self.breaker.state
        admission, is_probe = self.out.pop(index)
        self.breaker.record(admission, good, seconds)
        if is_probe and good is not None:
            slow_or_bad = not good or seconds > 5
            expected = BreakerState.OPEN if slow_or_bad else BreakerState.CLOSED
            assert self.breaker.state is expected
        elif before is not BreakerState.CLOSED:
            assert self.breaker.state is before

    @invariant()
    def at_most_one_probe_is_out(self) -> None:
        assert len([probe for _, probe in self.out if probe]) <= 1


TestAnyOrder = AnyOrder.TestCase
