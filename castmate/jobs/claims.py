"""What workers use: claim, keep alive, finish, take over. Every write is fenced by its attempt."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, exists, func, or_, select, update

from castmate.clients.payments import PaymentState
from castmate.errors import Cancelled, CastmateError, Interrupted, Overloaded
from castmate.jobs import notify, terms
from castmate.jobs.database import Database, Transaction
from castmate.jobs.predictions import Outcome, Prediction, State, StoredResult
from castmate.jobs.queue import Limits, in_state, lock_queue, take
from castmate.jobs.tables import attempts, payments, predictions, queue

CLOCK_SLACK_S: Final = 1.0
"""Clocks of processes that share a ledger differ by less."""

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
_DOUBLINGS: Final = 10
"""Of the pause; more would only overflow."""


@dataclass(frozen=True)
class Claim:
    """The right to work on a prediction, until its lease ends.

    Attributes:
        prediction: As it was claimed.
        owner: Which worker has it.
    """

    prediction: Prediction
    owner: str

    @property
    def id(self) -> str:
        """The prediction's."""
        return self.prediction.id

    @property
    def attempt(self) -> int:
        """Which one this is; a later one ends it."""
        return self.prediction.attempt


class Claims:
    """The queue from the workers' side."""

    def __init__(self, database: Database, limits: Limits | None = None) -> None:
        self._database, self._limits = database, limits or Limits()

    async def claim(
        self, owner: str, limit: int, only: Collection[str] | None = None
    ) -> Sequence[Claim]:
        """Take up to `limit` waiting predictions, those whose turn it is.

        Keys take turns (start-time fair queueing). `only` names those that may be taken.
        """

        def work(tx: Transaction) -> list[Claim]:
            if not _any(tx, State.CREATED):  # an idle worker locks nothing
                return []
            virtual_time = lock_queue(tx)
            waiting = (
                select(predictions.c.id)
                .where(in_state(State.CREATED), _is_rested(tx.now))
                .order_by(predictions.c.turn, predictions.c.id)
                .limit(limit)
            )
            if only is not None:
                waiting = waiting.where(predictions.c.id.in_(only))
            turns = tx.connection.execute(waiting).scalars().all()
            if not turns:
                return []
            rows = take(tx, turns, owner, self._limits.lease_s)
            if rows:
                latest = max(virtual_time, *(row.turn for row in rows))
                tx.connection.execute(update(queue).values(virtual_time=latest))
            return [Claim(Prediction.of(row), owner) for row in rows]

        return await self._database.run(work)

    async def keep_alive(self, owner: str, held: Mapping[str, int]) -> Mapping[str, bool]:
        """Extend the leases of one worker.

        Args:
            owner: Which worker.
            held: The attempt that it works on, by prediction.

        Returns:
            Whether someone wants it to stop, by prediction; what is missing is lost.
        """

        def work(tx: Transaction) -> dict[str, bool]:
            extended = (
                update(predictions)
                .where(
                    predictions.c.id.in_(list(held)),
                    predictions.c.owner == owner,
                    in_state(State.PROCESSING),
                )
                .values(lease_until=tx.now + self._limits.lease_s)
                .returning(predictions.c.id, predictions.c.attempt, predictions.c.cancel_requested)
            )
            rows = tx.connection.execute(extended).all()
            return {
                row.id: bool(row.cancel_requested) for row in rows if row.attempt == held[row.id]
            }

        return await self._database.run(work)

    async def show(self, progress: Sequence[tuple[Claim, str]]) -> None:
        """Write down how far predictions are, and notify those who watch them elsewhere."""

        def work(tx: Transaction) -> None:
            for claim, text in progress:
                tx.connection.execute(
                    update(predictions).where(_holds(claim)).values(progress=text)
                )
                tx.notify(notify.progress(claim.id))

        await self._database.run(work)

    async def complete(self, claim: Claim, result: StoredResult) -> bool:
        """Make the result visible; False where another attempt has taken over."""
        text, client = result.to_json(), result.client

        def work(tx: Transaction) -> bool:
            done = _finish(
                tx, claim, State.COMPLETED, Outcome.COMPLETED, result=text, client=client
            )
            if done:
                terms.write(tx, replace(claim.prediction, result=result))
            return done

        return await self._database.run(work)

    async def fail(self, claim: Claim, error: CastmateError) -> bool:
        """End the prediction with a reason; False where another attempt has taken over."""
        cancelled = isinstance(error, Cancelled)
        state = State.CANCELLED if cancelled else State.FAILED
        outcome = Outcome.CANCELLED if cancelled else Outcome.FAILED
        return await self._database.run(lambda tx: _finish(tx, claim, state, outcome, error=error))

    async def release(self, claim: Claim) -> bool:
        """Give the work back in order; it waits again, at its old place."""

        def work(tx: Transaction) -> bool:
            query = select(predictions).where(_holds(claim)).with_for_update()
            row = tx.connection.execute(query).one_or_none()
            if row is not None:
                self._put_back(tx, row, Outcome.RELEASED, row.deaths)
            return row is not None

        return await self._database.run(work)

    async def defer(self, claim: Claim, error: CastmateError, wait_s: float) -> float | None:
        """Let the prediction wait for a client that can draw, longer the longer it has waited.

        It keeps its turn. One that has waited for as long as it may ends with `error`, and so does
        one that kills whoever draws it.

        Args:
            claim: The attempt that ends here.
            error: Why no client could draw it.
            wait_s: How long it may wait, from the first time that none could.

        Returns:
            Seconds until it may be claimed again; None where it has ended or is no longer ours.
        """

        def work(tx: Transaction) -> float | None:
            query = select(predictions).where(_holds(claim)).with_for_update()
            row = tx.connection.execute(query).one_or_none()
            if row is None:
                return None
            deaths = row.deaths + error.died
            if row.cancel_requested or deaths >= self._limits.max_deaths:
                outcome = Outcome.DIED if error.died else Outcome.DEFERRED
                self._put_back(tx, row, outcome, deaths, str(error))
                return None
            since = tx.now if row.waits_since is None else row.waits_since
            left_s = since + wait_s - tx.now
            if left_s <= 0:
                if row.waits_since is not None:
                    error.args = (
                        f"It waited {tx.now - since:.0f} s for a client that can draw, as long as "
                        f"it may (CASTMATE_WAIT_S). {error}",
                    )
                _finish(tx, claim, State.FAILED, Outcome.FAILED, error=error)
                return None
            pause_s = min(_pause_s(row.waits, tx.now - since, error), left_s)
            cause = json.dumps(error.as_dict(), ensure_ascii=False)
            values = {
                "state": State.CREATED,
                "owner": None,
                "lease_until": None,
                "deaths": deaths,
                "waits": row.waits + 1,
                "waits_since": since,
                "waits_for": cause,
                "not_before": tx.now + pause_s,
            }
            tx.connection.execute(
                update(predictions).where(predictions.c.id == row.id).values(values)
            )
            _end_attempt(tx, row.id, row.attempt, Outcome.DEFERRED, error=cause)
            tx.notify(notify.progress(row.id))
            return pause_s

        return await self._database.run(work)

    async def recover(self) -> int:
        """Take the work away from everyone whose lease has ended; returns how much it was.

        A lease that ends later than one that begins now was written before the clock was set back.
        Its holder, if it lives, would have written a shorter one long before that end.
        """

        def work(tx: Transaction) -> int:
            if not _any(tx, State.PROCESSING):
                return 0
            ends = predictions.c.lease_until
            ended = or_(ends < tx.now, ends > tx.now + self._limits.lease_s + CLOCK_SLACK_S)
            silent = (
                select(predictions)
                .where(in_state(State.PROCESSING), ended)
                .with_for_update(skip_locked=True)
            )
            rows = tx.connection.execute(silent).all()
            for row in rows:
                self._put_back(tx, row, Outcome.DIED, row.deaths + 1)
            return len(rows)

        return await self._database.run(work)

    async def first_end_in_s(self) -> float:
        """Seconds until the first of all leases ends, unless its holder extends it."""
        first = select(func.min(predictions.c.lease_until)).where(in_state(State.PROCESSING))

        def work(tx: Transaction) -> float:
            ends = tx.connection.execute(first).scalar_one()
            return math.inf if ends is None else float(ends) - tx.now

        return await self._database.run(work)

    def _put_back(
        self, tx: Transaction, row: Row[Any], outcome: Outcome, deaths: int, last: str = ""
    ) -> None:
        """Let a prediction wait again, unless someone wants it to stop or it kills its workers."""
        values: dict[str, Any] = {"owner": None, "lease_until": None, "deaths": deaths}
        error: CastmateError | None = None
        if row.cancel_requested:
            error = Cancelled("Cancelled; the process that worked on it had stopped.")
            values["state"] = State.CANCELLED
        elif deaths >= self._limits.max_deaths:
            error = Interrupted(
                f"What drew it died {deaths} times; the last was {row.owner}. "
                f"{last or 'Its log may say why.'} Look there, then submit again."
            )
            values["state"] = State.FAILED
        else:
            values["state"] = State.CREATED
        if error is not None:
            values |= {"finished": tx.now, "error": _as_json(tx, row.id, error)}
        tx.connection.execute(update(predictions).where(predictions.c.id == row.id).values(values))
        _end_attempt(tx, row.id, row.attempt, outcome)
        tx.notify(notify.done(row.id) if error else notify.WORK)


def _holds(claim: Claim) -> ColumnElement[bool]:
    """The fence: whoever lost the lease changes nothing."""
    return and_(
        predictions.c.id == claim.id,
        predictions.c.attempt == claim.attempt,
        predictions.c.owner == claim.owner,
        in_state(State.PROCESSING),
    )


def _any(tx: Transaction, state: State) -> bool:
    return bool(tx.connection.execute(select(exists().where(in_state(state)))).scalar_one())


def _is_rested(now: float) -> ColumnElement[bool]:
    """Whether a prediction that waits for a client may be tried again.

    A rest that ends later than the longest one that begins now was written before the clock was set
    back.
    """
    ends = predictions.c.not_before
    return or_(ends.is_(None), ends <= now, ends > now + LONGEST_PAUSE_S + CLOCK_SLACK_S)


def _pause_s(waits: int, waited_s: float, error: CastmateError) -> float:
    """How long to rest: the end of an outage is noticed within a quarter of its length."""
    asked_s = error.retry_after_s if isinstance(error, Overloaded) else 0.0
    doubled_s = math.ldexp(FIRST_PAUSE_S, min(waits, _DOUBLINGS))
    share_s = max(FIRST_PAUSE_S, waited_s / 4)
    return min(max(min(doubled_s, share_s), asked_s), LONGEST_PAUSE_S)


def _finish(
    tx: Transaction,
    claim: Claim,
    state: State,
    outcome: Outcome,
    *,
    result: str | None = None,
    client: str | None = None,
    error: CastmateError | None = None,
) -> bool:
    """End a prediction, unless another attempt has taken over."""
    why = _as_json(tx, claim.id, error) if error else None
    ended = (
        update(predictions)
        .where(_holds(claim))
        .values(
            state=state, result=result, error=why, finished=tx.now, lease_until=None, progress=None
        )
    )
    if not tx.connection.execute(ended).rowcount:
        return False
    _end_attempt(tx, claim.id, claim.attempt, outcome, client=client, error=why)
    tx.notify(notify.done(claim.id))
    return True


def _end_attempt(
    tx: Transaction,
    prediction_id: str,
    attempt: int,
    outcome: Outcome,
    *,
    client: str | None = None,
    error: str | None = None,
) -> None:
    tx.connection.execute(
        update(attempts)
        .where(attempts.c.prediction_id == prediction_id, attempts.c.attempt == attempt)
        .values(finished=tx.now, outcome=outcome, client=client, error=error)
    )


def charged(tx: Transaction, prediction_id: str) -> bool | None:
    """Whether a prediction was paid for; None where nobody knows."""
    query = select(payments.c.state).where(payments.c.prediction_id == prediction_id).distinct()
    states = set(tx.connection.execute(query).scalars()) - {PaymentState.RELEASED}
    if not states:
        return False
    return True if states == {PaymentState.SETTLED} else None


def _as_json(tx: Transaction, prediction_id: str, error: CastmateError) -> str:
    """The error; whether something was charged is what the payments say."""
    values = error.as_dict()
    if (known := charged(tx, prediction_id)) is not False:
        values["charged"] = known
    return json.dumps(values, ensure_ascii=False)
