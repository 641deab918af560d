"""Hypothesis drives a ledger and a model of it through every order of events, and they agree.

`make crash` runs more of it; LEDGER_EXAMPLES says how many.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

import castmate.jobs.queue
from castmate.clients.payments import PaymentState
from castmate.errors import (
    Cancelled,
    IdempotencyConflict,
    LeaseLost,
    MaybeCharged,
    Overloaded,
    Unavailable,
)
from castmate.images import Reference
from castmate.jobs.budget import Budget
from castmate.jobs.claims import Claim, Claims
from castmate.jobs.keys import LOCAL_KEY, share_of
from castmate.jobs.ledger import Ledger
from castmate.jobs.opening import open_database
from castmate.jobs.predictions import State, StoredResult
from castmate.jobs.queue import Limits
from castmate.jobs.storage import memory_storage
from castmate.schema import GenerateRequest
from tests.castmate.jobs.conftest import Clock, empty
from tests.doubles import FRAMED, picture

T = TypeVar("T")
LIMITS = Limits(queue_limit=6, lease_s=10, max_deaths=3)
REFERENCE = Reference.from_bytes(picture(), "red.png")
FINAL = {State.COMPLETED, State.FAILED, State.CANCELLED}


@dataclass
class Model:
    """What a prediction should be."""

    prompt: str
    key_name: str
    state: State = State.CREATED
    attempt: int = 0
    deaths: int = 0
    cancel: bool = False
    lease_until: float = 0.0
    waits_since: float | None = None
    not_before: float = 0.0
    owner: str = ""
    result_of: int | None = None
    payments: dict[int, PaymentState] = field(default_factory=dict)

    def held_by(self, claim: Claim) -> bool:
        return self.state is State.PROCESSING and (self.attempt, self.owner) == (
            claim.attempt,
            claim.owner,
        )

    def put_back(self, deaths: int = 0) -> None:
        self.deaths += deaths
        if self.cancel:
            self.state = State.CANCELLED
        elif self.deaths >= LIMITS.max_deaths:
            self.state = State.FAILED
        else:
            self.state = State.CREATED


class LedgerMachine(RuleBasedStateMachine):
    """Workers die and wake by the order of the rules: a claim may be used at any later time."""

    url: ClassVar[str] = ""
    ids = Bundle("ids")
    claimed = Bundle("claimed")
    owners = st.sampled_from(["one", "two"])
    pictures = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.storage = memory_storage()
        # Ids decide between equal turns, and an example must go the same way when it is replayed.
        self.patch = pytest.MonkeyPatch()
        numbers = itertools.count()
        self.patch.setattr(castmate.jobs.queue, "new_id", lambda now: f"{next(numbers):032x}")
        self.models: dict[str, Model] = {}
        self.by_key: dict[str, str] = {}

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @initialize(target=claimed)
    def begin(self) -> Any:
        self.place = self.url or f"sqlite:///{self.folder.name}/ledger.sqlite3"
        if self.url:
            self.run(empty(self.url))
        self.open()
        # Most examples would spend half of their steps on the way to here.
        for prompt in ("waving", "running", "waving"):
            self.submit(prompt, None, LOCAL_KEY)
        return self.claim("one", 2)

    def open(self) -> None:
        self.database = self.run(open_database(self.place, clock=self.clock))
        self.ledger = Ledger(self.database, self.storage, LIMITS, self.clock)
        self.claims = Claims(self.database, LIMITS)

    def teardown(self) -> None:
        if hasattr(self, "database"):  # an example may end before it begins
            self.run(self.database.aclose())
        self.runner.close()
        self.folder.cleanup()
        self.patch.undo()

    @rule(
        target=ids,
        prompt=st.sampled_from(["waving", "running"]),
        idempotency_key=st.sampled_from([None, None, "a", "b"]),
        key_name=st.sampled_from(["ann", "bob", LOCAL_KEY]),
    )
    def submit(self, prompt: str, idempotency_key: str | None, key_name: str) -> Any:
        values = {"prompt": prompt, "image": "red.png", "seed": 1, "num_images": 2}
        known = self.by_key.get(f"{key_name} {idempotency_key}")
        waiting = [model for model in self.models.values() if model.state is State.CREATED]
        full = len(waiting) >= LIMITS.queue_limit
        mine = sum(model.key_name == key_name for model in waiting)
        full |= key_name != LOCAL_KEY and mine >= share_of(LIMITS.queue_limit)
        try:
            prediction = self.run(
                self.ledger.submit(
                    GenerateRequest.parse(values),
                    REFERENCE,
                    key_name=key_name,
                    idempotency_key=idempotency_key,
                )
            )
        except IdempotencyConflict:
            assert known is not None
            assert self.models[known].prompt != prompt
            return multiple()
        except Overloaded:
            assert known is None
            # Work that was given back is never refused, so it may stand above the limit.
            assert full
            return multiple()
        if known is not None:
            assert prediction.id == known
            assert self.models[known].prompt == prompt
            return multiple()
        assert prediction.id not in self.models
        assert not full
        self.models[prediction.id] = Model(prompt, key_name)
        if idempotency_key is not None:
            self.by_key[f"{key_name} {idempotency_key}"] = prediction.id
        return prediction.id

    @rule(target=claimed, owner=owners)
    def submit_and_begin_at_once(self, owner: str) -> Any:
        request = GenerateRequest.parse(
            {"prompt": "waving", "image": "red.png", "seed": 1, "num_images": 2}
        )
        prediction = self.run(self.ledger.submit(request, REFERENCE, owner=owner))
        lease_until = self.clock.now + LIMITS.lease_s
        self.models[prediction.id] = Model(
            "waving", LOCAL_KEY, State.PROCESSING, 1, lease_until=lease_until, owner=owner
        )
        return Claim(prediction, owner)

    @rule(target=claimed, owner=owners, limit=st.integers(1, 3))
    def claim(self, owner: str, limit: int) -> Any:
        claims = self.run(self.claims.claim(owner, limit))
        waiting = [
            model
            for model in self.models.values()
            if model.state is State.CREATED and model.not_before <= self.clock.now
        ]
        assert len(claims) == min(limit, len(waiting))
        for claim in claims:
            model = self.models[claim.id]
            assert model.state is State.CREATED
            assert claim.attempt == model.attempt + 1
            model.state, model.attempt, model.owner = State.PROCESSING, claim.attempt, owner
            model.lease_until = self.clock.now + LIMITS.lease_s
            model.not_before = 0.0
        return multiple(*claims)

    @rule(claim=claimed)
    def keep_alive(self, claim: Claim) -> None:
        model = self.models[claim.id]
        kept = self.run(self.claims.keep_alive(claim.owner, {claim.id: claim.attempt}))
        if model.held_by(claim):
            assert kept == {claim.id: model.cancel}
        else:
            assert kept == {}
        if model.state is State.PROCESSING and model.owner == claim.owner:
            model.lease_until = self.clock.now + LIMITS.lease_s

    @rule(claim=claimed)
    def complete(self, claim: Claim) -> None:
        model = self.models[claim.id]
        result = StoredResult((), f"attempt {claim.attempt}", "m", {}, (), 0.0)
        held = model.held_by(claim)
        assert self.run(self.claims.complete(claim, result)) == held
        if held:
            model.state, model.result_of = State.COMPLETED, claim.attempt

    @rule(claim=claimed, cancelled=st.booleans())
    def fail(self, claim: Claim, cancelled: bool) -> None:
        model = self.models[claim.id]
        held = model.held_by(claim)
        error = Cancelled("Stopped.") if cancelled else Unavailable("No.")
        assert self.run(self.claims.fail(claim, error)) == held
        if held:
            model.state = State.CANCELLED if cancelled else State.FAILED

    @rule(claim=claimed)
    def release(self, claim: Claim) -> None:
        model = self.models[claim.id]
        held = model.held_by(claim)
        assert self.run(self.claims.release(claim)) == held
        if held:
            model.put_back()

    @rule(claim=claimed, died=st.booleans())
    def defer(self, claim: Claim, died: bool) -> None:
        """No client can draw it: it waits, a minute at most, and ends if it kills what draws."""
        model = self.models[claim.id]
        error = Unavailable("Nobody can draw.")
        error.died = died
        held = model.held_by(claim)
        pause_s = self.run(self.claims.defer(claim, error, 60))
        if not held:
            assert pause_s is None
            return
        now = self.clock.now
        since = now if model.waits_since is None else model.waits_since
        if not model.cancel and model.deaths + died < LIMITS.max_deaths and now - since >= 60:
            model.state = State.FAILED
        else:
            model.put_back(deaths=int(died))
        assert (pause_s is not None) == (model.state is State.CREATED)
        if pause_s is not None:
            assert 0 < pause_s <= since + 60 - now
            model.waits_since, model.not_before = since, now + pause_s

    @rule(id=ids)
    def cancel(self, id: str) -> None:
        model = self.models[id]
        if model.state is State.CREATED:
            model.state, model.cancel = State.CANCELLED, True
        elif model.state is State.PROCESSING:
            model.cancel = True
        assert self.run(self.ledger.cancel(id)).state == model.state

    @rule(seconds=st.sampled_from([1, 9, 11, 70]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def recover(self) -> None:
        silent = [
            model
            for model in self.models.values()
            if model.state is State.PROCESSING and model.lease_until < self.clock.now
        ]
        assert self.run(self.claims.recover()) == len(silent)
        for model in silent:
            model.put_back(deaths=1)

    @rule(target=claimed, owner=owners)
    def everyone_falls_silent_and_one_takes_over(self, owner: str) -> Any:
        self.time_passes(11)
        self.recover()
        return self.claim(owner, 3)

    @rule(claim=claimed, index=pictures)
    def reserve(self, claim: Claim, index: int) -> None:
        model = self.models[claim.id]
        payments = Budget(self.database).payments(claim)
        paid = model.payments.get(index, PaymentState.RELEASED)
        try:
            self.run(payments.reserve(index, "hosted", 0.1))
        except LeaseLost:
            assert not model.held_by(claim)
        except Cancelled:
            assert model.held_by(claim)
            assert model.cancel
        except MaybeCharged:
            assert model.held_by(claim)
            assert paid is not PaymentState.RELEASED
        else:
            assert model.held_by(claim)
            assert not model.cancel
            assert paid is PaymentState.RELEASED
            model.payments[index] = PaymentState.SUBMITTING

    @rule(claim=claimed, index=pictures, state=st.sampled_from(PaymentState))
    def move(self, claim: Claim, index: int, state: PaymentState) -> None:
        model = self.models[claim.id]
        if index not in model.payments or not model.held_by(claim):
            return  # what zombies may move has tests of its own
        self.run(Budget(self.database).payments(claim).move(index, state))
        order = list(PaymentState)
        model.payments[index] = max(model.payments[index], state, key=order.index)

    @rule()
    def every_process_dies_and_one_comes_back(self) -> None:
        self.run(self.database.aclose())
        self.open()

    @invariant()
    def they_agree(self) -> None:
        found = {one.id: one for one in self.run(self.ledger.list(limit=1000))}
        assert found.keys() == self.models.keys()
        for id, model in self.models.items():
            one = found[id]
            assert (one.state, one.attempt) == (model.state, model.attempt)
            if one.waits_for is not None:
                assert model.waits_since is not None
            assert (one.finished is not None) == (model.state in FINAL)
            assert (one.result is not None) == (model.state is State.COMPLETED)
            assert (one.error is not None) == (model.state in FINAL - {State.COMPLETED})
            if one.result is not None:
                assert one.result.client == f"attempt {model.result_of}"
            if one.error is not None:
                states = set(model.payments.values()) - {PaymentState.RELEASED}
                json.dumps(dict(one.error))
                assert one.error["charged"] is not False or not states

    @invariant()
    def payments_agree(self) -> None:
        spent = self.run(Budget(self.database).spending())
        found = {(one.prediction_id, one.payment.index): one.payment.state for one in spent}
        assert found == {
            (id, index): state
            for id, model in self.models.items()
            for index, state in model.payments.items()
        }


def drive(machine: type[LedgerMachine], examples: int) -> None:
    examples = int(os.environ.get("LEDGER_EXAMPLES", examples))
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            suppress_health_check=checks,
            print_blob=False,
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_ledger_on_sqlite_is_what_the_model_says() -> None:
    drive(LedgerMachine, 30)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_ledger_on_postgresql_is_what_the_model_says(postgres_url: str) -> None:
    class PostgresMachine(LedgerMachine):
        url = postgres_url

    drive(PostgresMachine, 12)


def test_a_result_that_an_earlier_version_stored_is_read() -> None:
    stored = json.loads(StoredResult((), "local", "m", {}, (), 0.0, 14, {}, FRAMED).to_json())
    assert StoredResult.from_json(json.dumps(stored)).reference == FRAMED
    del stored["computed_steps"], stored["reference"]
    earlier = StoredResult.from_json(json.dumps(stored))
    assert (earlier.computed_steps, earlier.reference) == (None, None)
