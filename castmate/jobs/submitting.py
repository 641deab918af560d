"""What a submit writes for a prediction, and which earlier one stands for it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, select, update

from castmate import tracing
from castmate.errors import IdempotencyConflict, InvalidRequest, Problem
from castmate.images import Reference
from castmate.jobs.database import Transaction, check_storable
from castmate.jobs.predictions import Prediction, State, hash_of
from castmate.jobs.tables import predictions
from castmate.schema import MAX_SEED, GenerateRequest

MAX_IDEMPOTENCY_CHARACTERS: Final = 255


def check_idempotency_key(key: str | None) -> None:
    """Refuse a key that cannot be kept.

    Raises:
        InvalidRequest: It is empty or too long, or no database takes it.
    """
    if key is None:
        return
    if not 0 < (count := len(key)) <= MAX_IDEMPOTENCY_CHARACTERS:
        allowed = f"text of 1..{MAX_IDEMPOTENCY_CHARACTERS} characters"
        raise InvalidRequest([Problem("idempotency_key", f"has {count} characters", allowed)])
    check_storable("idempotency_key", key)


def values_of(
    request: GenerateRequest,
    reference: Reference,
    *,
    key_name: str,
    may_spend: bool,
    keep_s: float | None,
    idempotency_key: str | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    """The row of a new prediction, but for its place in the queue and its reference's file.

    Args:
        request: What to make.
        reference: Its picture.
        key_name: Whose it is.
        may_spend: Whether a client that costs money may make it.
        keep_s: How long it is kept once it is final; None is for ever.
        idempotency_key: The caller's.
        note: What the door wants to find again with it.
    """
    request = request.model_copy(update={"image": f"sha256:{reference.sha256}"})
    return _values(request, key_name, may_spend, keep_s, idempotency_key, note)


def values_again(
    request: GenerateRequest, known: Prediction, *, idempotency_key: str | None = None
) -> dict[str, Any]:
    """The row of a new prediction that is drawn from the reference of an earlier one.

    Args:
        request: What to make; its `image` is the earlier one's.
        known: The earlier one.
        idempotency_key: The caller's.
    """
    values = _values(
        request, known.key_name, known.may_spend, known.keep_s, idempotency_key, known.note
    )
    return values | {"input": known.input}


def _values(
    request: GenerateRequest,
    key_name: str,
    may_spend: bool,
    keep_s: float | None,
    idempotency_key: str | None,
    note: str | None,
) -> dict[str, Any]:
    return {
        "key_name": key_name,
        "idempotency_key": idempotency_key,
        "body_hash": hash_of(request),
        "state": State.CREATED,
        "request": _with_seed(request).model_dump_json(exclude_none=True),
        "attempt": 0,
        "deaths": 0,
        "cancel_requested": 0,
        "may_spend": int(may_spend),
        "note": note,
        "keep_s": keep_s,
        "traceparent": tracing.current(),
    }


def earlier(tx: Transaction, values: dict[str, Any], join_running: bool) -> Row[Any] | None:
    """What an earlier submit has taken that stands for this one too.

    Args:
        tx: Holds the queue's lock.
        values: By `values_of`.
        join_running: The same request that waits or runs does, without an idempotency key.

    Raises:
        IdempotencyConflict: The idempotency key stands for another request.
    """
    mine = select(predictions).where(predictions.c.key_name == values["key_name"])
    if (key := values["idempotency_key"]) is not None:
        same = mine.where(predictions.c.idempotency_key == key)
        row = tx.connection.execute(same).one_or_none()
        return row and unless_other(row, values["body_hash"], "prediction")
    states = (State.CREATED, State.PROCESSING) if join_running else ()
    for state in states:  # one at a time: each has its own index
        same = mine.where(
            predictions.c.state == state,
            predictions.c.body_hash == values["body_hash"],
            predictions.c.cancel_requested == 0,
        )
        if row := tx.connection.execute(same.limit(1)).one_or_none():
            return row
    return None


def agree(tx: Transaction, ids: Sequence[str]) -> None:
    """Let predictions be paid for that could not be."""
    agreed = update(predictions).where(predictions.c.id.in_(ids))
    tx.connection.execute(agreed.values(may_spend=1))


def unless_other(row: Row[Any], body_hash: str, kind: str) -> Row[Any]:
    """The row of an idempotency key, if it is of the same request.

    Raises:
        IdempotencyConflict: It is not.
    """
    if row.body_hash != body_hash:
        raise IdempotencyConflict(
            f"The idempotency key {row.idempotency_key!r} stands for another request, {kind} "
            f"{row.id}; nothing was done. Use a new key for a new request."
        )
    return row


def draw_seed() -> int:
    """A seed for a request that leaves it open."""
    return secrets.randbelow(MAX_SEED + 1)


def _with_seed(request: GenerateRequest) -> GenerateRequest:
    """Drawn here, so that every attempt makes the same pictures; hashes are of what was asked."""
    if request.seed >= 0:
        return request
    return request.model_copy(update={"seed": draw_seed()})
