"""Series of pictures: each scene is a prediction like any other, and one row joins them.

So claims, retries, leases, payments and metrics know nothing of series; a scene that fails loses no
other one, and whatever is killed in the middle goes on with the next start.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, delete, insert, select

from castmate.clients.base import ProgressCallback
from castmate.contact_sheet import Cell, contact_sheet
from castmate.errors import PredictionNotFound
from castmate.images import Reference
from castmate.jobs.database import Transaction
from castmate.jobs.ledger import Also, Ledger
from castmate.jobs.lookup import look_up, not_found
from castmate.jobs.predictions import State, StoredImage, new_id
from castmate.jobs.queue import check_unfinished, check_waiting, enqueue, lock_queue
from castmate.jobs.scenes import Counting, Scene, Storyboard, storyboard_of
from castmate.jobs.storage import SHEETS
from castmate.jobs.submitting import (
    agree,
    check_idempotency_key,
    draw_seed,
    unless_other,
    values_of,
)
from castmate.jobs.tables import scenes, storyboards
from castmate.schema import OutputFormat
from castmate.storyboard import Series


class Storyboards:
    """Every series of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        """Use an open ledger; nothing is read."""
        self._ledger, self._making = ledger, asyncio.Lock()

    async def submit(
        self,
        request: Series,
        reference: Reference,
        *,
        key_name: str = "local",
        idempotency_key: str | None = None,
        weight: float = 1.0,
        may_spend: bool = True,
        max_unfinished: int | None = None,
        also: Also | None = None,
    ) -> Storyboard:
        """Take a series whole or not at all; when this returns, every scene will be drawn or fail.

        The same submit again gives the same series as long as that is not complete: scenes that
        failed or were cancelled are then drawn again, with the same seed, and no others.

        Args:
            request: What to draw.
            reference: Its picture.
            key_name: Whose it is.
            idempotency_key: A second submit of the same series with it gives the same one, complete
                or not.
            weight: A key of weight 2 gets twice the share of one of weight 1.
            may_spend: Whether a client that costs money may draw it.
            max_unfinished: How many predictions of this key may wait or run at a time.
            also: Writes more in the same transaction, once for each prediction that is a new one.

        Raises:
            IdempotencyConflict: The idempotency key stands for another series.
            InvalidRequest: The key may never have so many scenes drawn at a time.
            Overloaded: There is no room for all of its scenes now.
            QuotaExceeded: The key keeps as many pictures as it may, and this is a new one.
        """
        check_idempotency_key(idempotency_key)
        ledger = self._ledger
        asked = request.model_copy(update={"image": f"sha256:{reference.sha256}"})
        body_hash = _hash_of(asked)

        def take(tx: Transaction) -> Storyboard:
            virtual_time = lock_queue(tx)
            row = _earlier(tx, key_name, idempotency_key, body_hash)
            known = None if row is None else storyboard_of(tx, row)
            if known and may_spend:  # agreed to meanwhile, perhaps
                agree(tx, [one.prediction.id for one in known.scenes])
            numbers = (
                range(1, len(asked.scenes) + 1)
                if known is None
                else [scene.number for scene in known.undrawn]
            )
            if numbers:
                check_unfinished(tx, key_name, max_unfinished, len(numbers))
                check_waiting(tx, ledger.limits, key_name, len(numbers))
            if row is None:
                row = _insert(tx, asked, key_name, idempotency_key, body_hash)
            # One that is known may have got other words, another order and other seeds.
            requests = (known.request if known else asked).requests(draw_seed())
            for scene in known.scenes if known else ():
                again = {"seed": scene.prediction.request.seed}
                requests[scene.number - 1] = requests[scene.number - 1].model_copy(update=again)
            for number in numbers:
                values = values_of(
                    requests[number - 1],
                    reference,
                    key_name=key_name,
                    may_spend=may_spend,
                    keep_s=ledger.keep_s,
                ) | {"input": ledger.pictures.take(tx, brought)}
                made = enqueue(tx, values, virtual_time, requests[number - 1].most_drawn / weight)
                _draw_by(tx, row.id, number, made.id)
                if also is not None:
                    also(tx, made.id)
            return replace(storyboard_of(tx, row), joined=known is not None)

        bringing = ledger.pictures.bringing(reference.data, reference.sha256, key_name)
        async with bringing as brought:
            return await ledger.database.run(take)

    async def get(self, storyboard_id: str, key_name: str | None = None) -> Storyboard:
        """A series with the predictions of its scenes.

        Args:
            storyboard_id: Which.
            key_name: Who asks; None may see everything.

        Raises:
            PredictionNotFound: There is none of this id and key; it may have been swept.
        """

        def work(tx: Transaction) -> Storyboard:
            found = storyboard_of(tx, look_up(tx, storyboards, storyboard_id, key_name))
            if not found.scenes:
                raise not_found(storyboards, storyboard_id)
            return found

        return await self._ledger.database.run(work)

    async def find(self, storyboard_id: str, key_name: str | None = None) -> Storyboard | None:
        """Like `get`, or None where there is none."""
        try:
            return await self.get(storyboard_id, key_name)
        except PredictionNotFound:
            return None

    async def list(
        self, key_name: str | None = None, *, before: str | None = None, limit: int = 50
    ) -> Sequence[Storyboard]:
        """Series, the newest first.

        Args:
            key_name: Whose; None is everyone's.
            before: The last id of the page before.
            limit: At most so many.
        """
        query = select(storyboards).order_by(storyboards.c.id.desc()).limit(limit)
        if key_name is not None:
            query = query.where(storyboards.c.key_name == key_name)
        if before is not None:
            query = query.where(storyboards.c.id < before)

        def work(tx: Transaction) -> list[Storyboard]:
            return [storyboard_of(tx, row) for row in tx.connection.execute(query).all()]

        return await self._ledger.database.run(work)

    async def wait(
        self,
        storyboard_id: str,
        timeout_s: float | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> Storyboard:
        """The series once nothing is left to draw, or as it is when the time is over.

        Progress counts the steps of all scenes; it comes where they are made in this process.

        Raises:
            PredictionNotFound: There is none of this id.
        """
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            found = await self.get(storyboard_id)
            left_s = None if ends is None else max(0.0, ends - time.monotonic())
            if found.state.final or left_s == 0.0:
                return found
            counting = Counting(found, on_progress)
            waits = [
                self._ledger.wait(scene.prediction.id, left_s, counting.of(scene))
                for scene in found.scenes
                if not scene.prediction.state.final
            ]
            for ended in await asyncio.gather(*waits, return_exceptions=True):
                if isinstance(ended, BaseException) and not isinstance(ended, PredictionNotFound):
                    raise ended

    async def cancel(self, storyboard_id: str, key_name: str | None = None) -> Storyboard:
        """Stop every scene that waits or is being drawn; what is finished stays.

        Raises:
            PredictionNotFound: There is none of this id and key.
        """
        found = await self.get(storyboard_id, key_name)
        for scene in found.scenes:
            if not scene.prediction.state.final:
                await self._ledger.cancel(scene.prediction.id)
        return await self.get(storyboard_id, key_name)

    async def delete(self, storyboard_id: str, key_name: str | None = None) -> bool:
        """Remove a series with its pictures, unless something of it waits or runs.

        Raises:
            PredictionNotFound: There is none of this id and key.
        """
        found = await self.get(storyboard_id, key_name)
        if not found.state.final:
            return False
        await self._ledger.delete([scene.prediction.id for scene in found.scenes], key_name)
        await self._ledger.storage.delete_picture(_sheet_name(found))
        return True

    async def sheet(self, found: Storyboard) -> StoredImage | None:
        """The contact sheet of a series that is over; None before, and where nothing was drawn.

        It is made when it is first asked for, and again after a scene was drawn again.
        """
        if found.state is not State.COMPLETED or not any(one.image for one in found.scenes):
            return None
        storage, name = self._ledger.storage, _sheet_name(found)
        async with self._making:  # one at a time: a sheet of twelve takes memory
            try:
                data = await storage.get(name)
            except FileNotFoundError:
                cells = [
                    Cell(scene.number, scene.text, await self._drawn(scene))
                    for scene in found.scenes
                ]
                data = await asyncio.to_thread(contact_sheet, cells, found.request.layout)
                await storage.put(name, data)
        return _as_image(name, data, found)

    async def _drawn(self, scene: Scene) -> bytes | None:
        """Its picture; None where there is none, or where it was deleted since it was looked up."""
        if scene.image is None:
            return None
        try:
            return await self._ledger.storage.get(scene.image.name)
        except FileNotFoundError:
            return None


def _insert(
    tx: Transaction, asked: Series, key_name: str, idempotency_key: str | None, body_hash: str
) -> Row[Any]:
    values = {
        "id": new_id(tx.now),
        "key_name": key_name,
        "idempotency_key": idempotency_key,
        "body_hash": body_hash,
        "request": asked.model_dump_json(exclude_none=True),
        "created": tx.now,
    }
    return tx.connection.execute(insert(storyboards).returning(storyboards), values).one()


def _draw_by(tx: Transaction, storyboard_id: str, number: int, prediction_id: str) -> None:
    """Let a prediction draw a scene, whatever drew it before."""
    same = (scenes.c.storyboard_id == storyboard_id, scenes.c.number == number)
    tx.connection.execute(delete(scenes).where(*same))
    values = {"storyboard_id": storyboard_id, "number": number, "prediction_id": prediction_id}
    tx.connection.execute(insert(scenes), values)


def _earlier(
    tx: Transaction, key_name: str, idempotency_key: str | None, body_hash: str
) -> Row[Any] | None:
    """The series that an earlier submit has taken and that stands for this one too."""
    mine = select(storyboards).where(storyboards.c.key_name == key_name)
    if idempotency_key is not None:
        same = mine.where(storyboards.c.idempotency_key == idempotency_key)
        row = tx.connection.execute(same).one_or_none()
        return row and unless_other(row, body_hash, "storyboard")
    same = mine.where(storyboards.c.body_hash == body_hash).order_by(storyboards.c.id.desc())
    row = tx.connection.execute(same.limit(1)).one_or_none()
    if row is None:
        return None
    found = storyboard_of(tx, row)
    whole = len(found.scenes) == len(found.request.scenes)
    return row if whole and (found.undrawn or not found.state.final) else None


def _hash_of(request: Series) -> str:
    body = json.dumps(request.model_dump(mode="json", exclude_none=True), sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


def _sheet_name(found: Storyboard) -> str:
    """It names what is on the sheet: a scene that is drawn again gives another one."""
    drawn = json.dumps([[one.number, one.prediction.id] for one in found.scenes if one.image])
    digest = hashlib.sha256(drawn.encode()).hexdigest()[:16]
    return f"{SHEETS}/{found.id}-{digest}.png"


def _as_image(name: str, data: bytes, found: Storyboard) -> StoredImage:
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))  # of a PNG
    return StoredImage(
        name=name,
        num_bytes=len(data),
        output_format=OutputFormat.PNG,
        width=width,
        height=height,
        seed=found.scenes[0].prediction.request.seed,
    )
