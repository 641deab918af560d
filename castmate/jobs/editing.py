"""Changes a series that is there: one scene is drawn again, or all get another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, insert, update

from castmate.errors import InvalidRequest, PredictionNotFound, Problem
from castmate.jobs.database import Transaction
from castmate.jobs.ledger import Ledger
from castmate.jobs.lookup import look_up
from castmate.jobs.queue import check_unfinished, check_waiting, enqueue, lock_queue
from castmate.jobs.scenes import Scene, Storyboard, storyboard_of
from castmate.jobs.submitting import check_idempotency_key, earlier, values_again
from castmate.jobs.tables import scenes, storyboards
from castmate.storyboard import Series


async def redraw(
    ledger: Ledger,
    storyboard_id: str,
    number: int,
    *,
    key_name: str,
    seed: int = -1,
    text: str = "",
    idempotency_key: str | None = None,
    weight: float = 1.0,
    max_unfinished: int | None = None,
) -> Storyboard:
    """Draw a scene again; what drew it before stays among the key's pictures.

    Args:
        ledger: Where the series is.
        storyboard_id: Which.
        number: Of the scene, from 1.
        key_name: Whose it is.
        seed: Of the new picture; -1 draws one.
        text: What the scene shows from now on; empty leaves it as it is.
        idempotency_key: A second call with it changes nothing.
        weight: See `Ledger.submit`.
        max_unfinished: The same.

    Raises:
        PredictionNotFound: There is no such series of this key, or it has no such scene.
        InvalidRequest: The scene waits or is being drawn.
        IdempotencyConflict: The idempotency key stands for another request.
        Overloaded: Too many predictions wait, of all or of this key.
    """
    check_idempotency_key(idempotency_key)

    def work(tx: Transaction) -> Storyboard:
        virtual_time = lock_queue(tx)
        row = look_up(tx, storyboards, storyboard_id, key_name, lock=True)
        found = storyboard_of(tx, row)
        scene = _scene(found, number)
        texts = [*found.request.scenes]
        texts[number - 1] = text or texts[number - 1]
        series = found.request.model_copy(update={"scenes": texts})
        asked = series.requests(0)[number - 1].model_copy(
            update={"seed": seed, "image": scene.prediction.request.image}
        )
        values = values_again(asked, scene.prediction, idempotency_key=idempotency_key)
        if earlier(tx, values, join_running=False) is not None:
            return found
        if not scene.prediction.state.final:
            message = f"scene {number} is {scene.prediction.state.value}"
            hint = f"Wait for it, or cancel prediction {scene.prediction.id}."
            raise InvalidRequest([Problem("number", message, "a scene that has ended", hint)])
        check_unfinished(tx, key_name, max_unfinished)
        check_waiting(tx, ledger.limits, key_name)
        made = enqueue(
            tx, values | {"keep_s": ledger.keep_s}, virtual_time, asked.most_drawn / weight
        )
        _rewrite(
            tx,
            row,
            series,
            {one.number: one.prediction.id for one in found.scenes} | {number: made.id},
        )
        return storyboard_of(tx, look_up(tx, storyboards, storyboard_id, key_name, lock=True))

    return await ledger.database.run(work)


async def reorder(
    ledger: Ledger, storyboard_id: str, order: Sequence[int], *, key_name: str
) -> Storyboard:
    """Give the scenes of a series another order; nothing is drawn.

    Args:
        ledger: Where the series is.
        storyboard_id: Which.
        order: The numbers that the scenes have now, in their new order.
        key_name: Whose it is.

    Raises:
        PredictionNotFound: There is no such series of this key.
        InvalidRequest: It is not every number once.
    """

    def work(tx: Transaction) -> Storyboard:
        lock_queue(tx)
        row = look_up(tx, storyboards, storyboard_id, key_name, lock=True)
        found = storyboard_of(tx, row)
        known = {one.number: one for one in found.scenes}
        if sorted(order) != sorted(known):
            allowed = f"each of {', '.join(map(str, sorted(known)))} once"
            raise InvalidRequest([Problem("order", f"{[*order]} is not every scene once", allowed)])
        texts = [*found.request.scenes]
        for number, old in zip(sorted(known), order, strict=True):
            texts[number - 1] = known[old].text
        series = found.request.model_copy(update={"scenes": texts})
        drawn = zip(sorted(known), order, strict=True)
        _rewrite(tx, row, series, {new: known[old].prediction.id for new, old in drawn})
        return storyboard_of(tx, look_up(tx, storyboards, storyboard_id, key_name, lock=True))

    return await ledger.database.run(work)


def _scene(found: Storyboard, number: int) -> Scene:
    known = {one.number: one for one in found.scenes}
    if number not in known:
        there = ", ".join(map(str, known))
        raise PredictionNotFound(f"Storyboard {found.id} has no scene {number}, only {there}.")
    return known[number]


def _rewrite(tx: Transaction, row: Row[Any], series: Series, drawn_by: dict[int, str]) -> None:
    """Write a series as it is now.

    Its hash stays: the request that asked for it in the first place still stands for it.
    """
    changed = update(storyboards).where(storyboards.c.id == row.id)
    tx.connection.execute(changed.values(request=series.model_dump_json(exclude_none=True)))
    tx.connection.execute(delete(scenes).where(scenes.c.storyboard_id == row.id))
    values = [
        {"storyboard_id": row.id, "number": number, "prediction_id": prediction_id}
        for number, prediction_id in drawn_by.items()
    ]
    tx.connection.execute(insert(scenes), values)
