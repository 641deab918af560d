"""What was paid and what may be: caps that hold for every process and after every crash."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, func, insert, select, update

from castmate.clients.payments import Payment, PaymentState
from castmate.errors import BudgetExceeded, Cancelled, LeaseLost, MaybeCharged, NotAgreed
from castmate.jobs.claims import Claim
from castmate.jobs.database import Database, Transaction
from castmate.jobs.predictions import State
from castmate.jobs.tables import api_keys, payments, predictions
from castmate.times import day_of

_MICRO: Final = 1_000_000
_ORDER: Final = list(PaymentState)
_LOCK: Final = 7_310_581


@dataclass(frozen=True)
class Caps:
    """What may be spent, in dollars; None is no cap.

    Attributes:
        per_prediction: For one prediction, over all its attempts.
        per_day: By everyone together in one day (UTC).
        per_key: By one key, in all.
    """

    per_prediction: float | None = None
    per_day: float | None = None
    per_key: float | None = None


@dataclass(frozen=True)
class Spent:
    """One payment, as `castmate spend` lists it."""

    prediction_id: str
    key_name: str
    day: str
    reserved: float
    payment: Payment

    @property
    def counts(self) -> bool:
        """It was charged, or may have been."""
        return self.payment.state is not PaymentState.RELEASED

    def as_dict(self) -> dict[str, Any]:
        """The payment as JSON."""
        values = asdict(self)
        payment: dict[str, Any] = values.pop("payment")
        return payment | values | {"counts": self.counts}


@dataclass(frozen=True)
class Sum:
    """Dollars of a key on a day."""

    day: str
    key_name: str
    usd: float


class Budget:
    """The payments of all predictions."""

    def __init__(self, database: Database, caps: Caps | None = None) -> None:
        self._database, self._caps = database, caps or Caps()

    def payments(self, claim: Claim) -> LedgerPayments:
        """What the client that works on a claim gets."""
        return LedgerPayments(self._database, self._caps, claim)

    async def spending(
        self, *, since: str | None = None, key_name: str | None = None
    ) -> Sequence[Spent]:
        """Every payment, the oldest first.

        Args:
            since: The first day (UTC), such as 2026-11-01.
            key_name: Whose; None is everyone's.
        """
        query = select(payments).order_by(payments.c.reserved, payments.c.picture)
        if since is not None:
            query = query.where(payments.c.day >= since)
        if key_name is not None:
            query = query.where(payments.c.key_name == key_name)
        return await self._database.run(
            lambda tx: [
                Spent(row.prediction_id, row.key_name, row.day, row.reserved, _payment(row))
                for row in tx.connection.execute(query)
            ]
        )

    async def sums(self, since: str) -> Sequence[Sum]:
        """What was or may have been charged since a day (UTC), for each day and key."""
        query = (
            select(payments.c.day, payments.c.key_name, func.sum(payments.c.price_micro_usd))
            .where(payments.c.day >= since, payments.c.state != PaymentState.RELEASED)
            .group_by(payments.c.day, payments.c.key_name)
            .order_by(payments.c.day, payments.c.key_name)
        )
        return await self._database.run(
            lambda tx: [
                Sum(day, key_name, float(micro) / _MICRO)
                for day, key_name, micro in tx.connection.execute(query)
            ]
        )

    async def left(self, key_name: str) -> float | None:
        """Dollars that a key may still cause today; None where no cap is set."""

        def work(tx: Transaction) -> float | None:
            checks = _shared_checks(tx, self._caps, key_name, day_of(tx.now))
            left = [
                max(0, _micro(cap) - _spent(tx, counted)) / _MICRO
                for _, cap, counted, _ in checks
                if cap is not None
            ]
            return min(left, default=None)

        return await self._database.run(work)


class LedgerPayments:
    """The payments of one prediction in the ledger; see `Payments`."""

    def __init__(self, database: Database, caps: Caps, claim: Claim) -> None:
        self._database, self._caps, self._claim = database, caps, claim

    async def known(self) -> Sequence[Payment]:
        """What this and earlier attempts wrote."""
        query = (
            select(payments)
            .where(payments.c.prediction_id == self._claim.id)
            .order_by(payments.c.picture)
        )
        return await self._database.run(
            lambda tx: [_payment(row) for row in tx.connection.execute(query)]
        )

    async def reserve(self, index: int, client: str, price_usd: float) -> None:
        """Write `SUBMITTING` for picture `index`, within every cap.

        Raises:
            NotAgreed: It was submitted as one that may not cost anything; nothing was written.
            BudgetExceeded: A cap would be passed; nothing was written.
            MaybeCharged: This picture was submitted before; nothing was written.
            LeaseLost: Another attempt works on the prediction now; nothing was written.
            Cancelled: Someone wants the prediction to stop; nothing was written.
        """
        if not (math.isfinite(price_usd) and price_usd >= 0):
            raise ValueError(f"a price of {price_usd} dollars")
        price = _micro(price_usd)

        def work(tx: Transaction) -> None:
            if tx.connection.dialect.name == "postgresql":  # SQLite has one writer anyway
                tx.connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            self._check_claim(tx)
            known = tx.connection.execute(select(payments).where(self._is(index))).one_or_none()
            if known is not None and known.state != PaymentState.RELEASED:
                raise MaybeCharged(
                    f"Picture {index + 1} was submitted to {known.client} before, as "
                    f"{known.remote_id or 'an id that was lost'}; it is not submitted again. "
                    f"Look at the account's history."
                )
            self._check_caps(tx, price)
            values = {
                "client": client,
                "state": PaymentState.SUBMITTING,
                "price_micro_usd": price,
                "remote_id": None,
                "attempt": self._claim.attempt,
                "day": day_of(tx.now),
                "reserved": tx.now,
                "moved": tx.now,
            }
            if known is not None:
                tx.connection.execute(update(payments).where(self._is(index)).values(values))
                return
            values |= {
                "prediction_id": self._claim.id,
                "picture": index,
                "key_name": self._claim.prediction.key_name,
            }
            tx.connection.execute(insert(payments), values)

        await self._database.run(work)

    async def move(self, index: int, state: PaymentState, remote_id: str | None = None) -> None:
        """Write how far the payment of picture `index` came.

        A state that lies further back changes nothing, and neither does an attempt older than the
        one that reserved: it may have slept. A remote id is never forgotten.
        """

        def work(tx: Transaction) -> None:
            query = select(payments).where(self._is(index)).with_for_update()
            known = tx.connection.execute(query).one_or_none()
            if known is None:
                raise LookupError(f"nothing was reserved for picture {index}")
            if known.attempt > self._claim.attempt:
                return
            values: dict[str, Any] = {"moved": tx.now}
            if _ORDER.index(state) >= _ORDER.index(PaymentState(known.state)):
                values["state"] = state
            if remote_id is not None and known.remote_id is None:
                values["remote_id"] = remote_id
            tx.connection.execute(update(payments).where(self._is(index)).values(values))

        await self._database.run(work)

    def _is(self, index: int) -> ColumnElement[bool]:
        return and_(payments.c.prediction_id == self._claim.id, payments.c.picture == index)

    def _check_claim(self, tx: Transaction) -> None:
        query = select(predictions).where(predictions.c.id == self._claim.id).with_for_update()
        row = tx.connection.execute(query).one_or_none()
        if row is None or (row.state, row.attempt, row.owner) != (
            State.PROCESSING,
            self._claim.attempt,
            self._claim.owner,
        ):
            raise LeaseLost(
                f"Attempt {self._claim.attempt} of prediction {self._claim.id} is over; nothing "
                "was submitted."
            )
        if row.cancel_requested:
            raise Cancelled("Cancelled before it was submitted; nothing was charged for it.")
        if not row.may_spend:
            raise NotAgreed("It costs money, and nobody has agreed to pay; nothing was charged.")

    def _check_caps(self, tx: Transaction, price: int) -> None:
        today, caps, claim = day_of(tx.now), self._caps, self._claim
        key_name = claim.prediction.key_name
        mine = payments.c.prediction_id == claim.id
        checks = (
            ("CASTMATE_MAX_USD_PER_PREDICTION", caps.per_prediction, mine, "for it"),
            *_shared_checks(tx, caps, key_name, today),
        )
        for name, cap, counted, what in checks:
            if cap is None:
                continue
            spent = _spent(tx, counted)
            if spent + price > _micro(cap):
                raise BudgetExceeded(
                    f"${spent / _MICRO:.2f} was spent {what}, and ${price / _MICRO:.2f} more would "
                    f"pass {name} (${cap:.2f}); nothing was sent or charged. "
                    "Raise the cap" + (" or try again tomorrow." if "DAY" in name else ".")
                )


def _shared_checks(
    tx: Transaction, caps: Caps, key_name: str, today: str
) -> Sequence[tuple[str, float | None, ColumnElement[bool], str]]:
    """The caps beyond one prediction: name, dollars, what counts, and how that is worded."""
    of_key = select(api_keys.c.max_micro_usd).where(api_keys.c.name == key_name)
    own = tx.connection.execute(of_key).scalar_one_or_none()
    cap, name = (
        (caps.per_key, "CASTMATE_MAX_USD_PER_KEY")
        if own is None
        else (own / _MICRO, "the key's own budget")
    )
    return (
        ("CASTMATE_MAX_USD_PER_DAY", caps.per_day, payments.c.day == today, f"on {today} (UTC)"),
        (name, cap, payments.c.key_name == key_name, f"by key {key_name!r}"),
    )


def _spent(tx: Transaction, counted: ColumnElement[bool]) -> int:
    """Millionths of a dollar that were or may have been charged."""
    query = select(func.coalesce(func.sum(payments.c.price_micro_usd), 0)).where(
        counted, payments.c.state != PaymentState.RELEASED
    )
    return int(tx.connection.execute(query).scalar_one())


def totals(spent: Sequence[Spent], name: Callable[[Spent], str]) -> dict[str, float]:
    """Dollars that were or may have been charged, added up by what `name` gives."""
    sums: dict[str, int] = {}
    for one in spent:
        if one.counts:
            sums[name(one)] = sums.get(name(one), 0) + _micro(one.payment.price_usd)
    return {key: micro / _MICRO for key, micro in sums.items()}


def _micro(usd: float) -> int:
    return round(usd * _MICRO)


def _payment(row: Row[Any]) -> Payment:
    return Payment(
        row.picture,
        row.client,
        PaymentState(row.state),
        row.price_micro_usd / _MICRO,
        row.remote_id,
    )
