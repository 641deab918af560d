"""What the doors use: submit, look, wait and cancel. Acknowledged means durable."""

from __future__ import annotations

import asyncio
import json
import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy import delete, exists, select, update

from castmate import tracing
from castmate.clients.base import ProgressCallback
from castmate.errors import Cancelled
from castmate.images import Reference
from castmate.jobs import notify, terms
from castmate.jobs.backlog import Backlog, backlog_of
from castmate.jobs.claims import charged
from castmate.jobs.database import Clock, Database, Transaction
from castmate.jobs.lookup import look_up
from castmate.jobs.pictures import Pictures, release
from castmate.jobs.predictions import Prediction, State, first_id
from castmate.jobs.progress import Reader
from castmate.jobs.queue import (
    Limits,
    Load,
    begin,
    check_unfinished,
    check_waiting,
    enqueue,
    load_of,
    lock_queue,
)
from castmate.jobs.step_times import StepTimes, step_times_of
from castmate.jobs.storage import Storage
from castmate.jobs.submitting import agree, check_idempotency_key, earlier, values_of
from castmate.jobs.tables import attempts, predictions, queue, scenes, storyboards, webhooks
from castmate.schema import GenerateRequest

Also = Callable[[Transaction, str], object]
"""Writes more in the transaction of a submit; gets the prediction's id."""


class Ledger:
    """Every prediction, durable before it is acknowledged."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        limits: Limits | None = None,
        clock: Clock = time.time,
        keep_s: float | None = None,
    ) -> None:
        """Use a database and a storage that are open.

        Args:
            database: Where rows are.
            storage: Where pictures are.
            limits: The rules of the queue.
            clock: Seconds since 1970; only tests replace it.
            keep_s: How long what is submitted here is kept once it is final; None is for ever.
        """
        self.database, self.storage = database, storage
        self.limits = limits or Limits()
        self.clock, self.keep_s = clock, keep_s
        self.pictures = Pictures(database, storage, clock, self.limits.stored_bytes_per_key)

    async def submit(
        self,
        request: GenerateRequest,
        reference: Reference,
        *,
        key_name: str = "local",
        idempotency_key: str | None = None,
        weight: float = 1.0,
        owner: str | None = None,
        may_spend: bool = True,
        join_running: bool = False,
        max_unfinished: int | None = None,
        note: str | None = None,
        also: Also | None = None,
    ) -> Prediction:
        """Take a prediction; when this returns, it will be made or fail with a reason.

        Args:
            request: What to make.
            reference: Its picture, which is stored: a recovery needs nothing from the caller.
            key_name: Whose it is: the name of an API key, never the key. Keys share the clients
                fairly, whatever each of them submits.
            idempotency_key: A second submit of the same request with it gives the same prediction.
            weight: A key of weight 2 gets twice the share of one of weight 1.
            owner: A worker that begins with it at once; it does not wait in the queue, nor is it
                refused because others do.
            may_spend: Whether a client that costs money may make it.
            join_running: Give the same request of this key that waits or runs, if there is one,
                instead of taking it a second time.
            max_unfinished: How many predictions of this key may wait or run at a time.
            note: What the caller wants to find again with the prediction.
            also: Writes more in the same transaction, where the prediction is a new one.

        Raises:
            IdempotencyConflict: The idempotency key stands for another request.
            Overloaded: Too many are waiting, of all or of this key.
            QuotaExceeded: The key keeps as many pictures as it may, and this is a new one.
            InvalidRequest: The idempotency key is empty or too long.
        """
        check_idempotency_key(idempotency_key)
        values = values_of(
            request,
            reference,
            key_name=key_name,
            may_spend=may_spend,
            keep_s=self.keep_s,
            idempotency_key=idempotency_key,
            note=note,
        )
        cost = request.most_drawn / weight

        def work(tx: Transaction) -> Prediction:
            virtual_time = lock_queue(tx)
            if row := earlier(tx, values, join_running):
                if may_spend and not row.may_spend:  # agreed to meanwhile
                    agree(tx, [row.id])
                return replace(Prediction.of(row), joined=True)
            check_unfinished(tx, key_name, max_unfinished)
            if owner is None:
                check_waiting(tx, self.limits, key_name)
            new = values | {"input": self.pictures.take(tx, brought)}
            if owner is None:
                row = enqueue(tx, new, virtual_time, cost)
            else:
                row = begin(tx, new, virtual_time + cost, owner, self.limits.lease_s)
            if also is not None:
                also(tx, row.id)
            return Prediction.of(row)

        bringing = self.pictures.bringing(reference.data, reference.sha256, key_name)
        with tracing.span("submit") as span:
            async with bringing as brought:
                prediction = await self.database.run(work)
            span.set_attribute("castmate.prediction", prediction.id)
            return prediction

    async def check_room(self, key_name: str, max_unfinished: int | None = None) -> None:
        """Refuse early what `submit` would refuse: before a reference is fetched and stored.

        Raises:
            Overloaded: Too many are waiting, of all or of this key.
        """

        def work(tx: Transaction) -> None:
            check_waiting(tx, self.limits, key_name)
            check_unfinished(tx, key_name, max_unfinished)

        await self.database.run(work)

    async def get(self, prediction_id: str, key_name: str | None = None) -> Prediction:
        """A prediction with all its attempts.

        Args:
            prediction_id: Which.
            key_name: Who asks; None may see everything.

        Raises:
            PredictionNotFound: There is none of this id and key; it may have been swept.
        """

        def work(tx: Transaction) -> Prediction:
            row = look_up(tx, predictions, prediction_id, key_name)
            tried = select(attempts).where(attempts.c.prediction_id == prediction_id)
            return Prediction.of(
                row, tx.connection.execute(tried.order_by(attempts.c.attempt)).all()
            )

        return await self.database.run(work)

    async def list(
        self,
        *,
        key_name: str | None = None,
        state: State | None = None,
        before: str | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Sequence[Prediction]:
        """Predictions, the newest first.

        Args:
            key_name: Whose; None is everyone's.
            state: Only those in it.
            before: The last id of the page before.
            created_after: Seconds since 1970.
            created_before: The same.
            limit: At most so many.
            offset: How many are left out first; `before` is quicker far behind.
        """
        query = select(predictions).order_by(predictions.c.id.desc()).limit(limit).offset(offset)
        for column, compare, value in (
            (predictions.c.key_name, operator.eq, key_name),
            (predictions.c.state, operator.eq, state),
            (predictions.c.id, operator.lt, before),
            (predictions.c.id, operator.ge, first_id(created_after)),
            (predictions.c.created, operator.ge, created_after),
            (predictions.c.created, operator.lt, created_before),
        ):
            if value is not None:
                query = query.where(compare(column, value))
        return await self.database.run(
            lambda tx: [Prediction.of(row) for row in tx.connection.execute(query)]
        )

    async def wait(
        self,
        prediction_id: str,
        timeout_s: float | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> Prediction:
        """The prediction once it is final, or as it is when the time is over.

        A caller that goes away cancels nothing. Progress comes with every step where the prediction
        is made in this process, and once a second from others.

        Raises:
            PredictionNotFound: There is none of this id.
        """
        hub, reader = self.database.hub, Reader(self.storage)
        topics = [notify.done(prediction_id)]
        topics += [notify.progress(prediction_id)] if on_progress else []
        with hub.listening(*topics) as signal, hub.watching(prediction_id, on_progress):
            prediction = await self.get(prediction_id)
            try:
                async with asyncio.timeout(timeout_s):
                    while not prediction.state.final:
                        text = None if hub.makes(prediction_id) else prediction.progress
                        if on_progress and (progress := await reader.read(text)):
                            on_progress(progress)
                        await signal.wait()
                        signal.clear()
                        prediction = await self.get(prediction_id)
            except TimeoutError:  # neither its start nor its wait is announced
                prediction = await self.get(prediction_id)
            return prediction

    async def cancel(self, prediction_id: str, key_name: str | None = None) -> Prediction:
        """Stop a prediction: at once where it waits, before its next step where it is made.

        One that is final stays what it is; a picture that is finished first wins.

        Raises:
            PredictionNotFound: There is none of this id and key.
        """

        def work(tx: Transaction) -> Prediction:
            row = look_up(tx, predictions, prediction_id, key_name, lock=True)
            change = update(predictions).where(predictions.c.id == prediction_id)
            if row.state == State.CREATED:
                paid = charged(tx, prediction_id)  # by an attempt that gave the work back
                free = "; nothing was charged" if paid is False else ""
                error = Cancelled(f"Cancelled while it was waiting{free}.")
                error.charged = paid
                change = change.values(
                    state=State.CANCELLED,
                    cancel_requested=1,
                    finished=tx.now,
                    error=json.dumps(error.as_dict()),
                )
                tx.notify(notify.done(prediction_id))
            elif row.state == State.PROCESSING:
                change = change.values(cancel_requested=1)
                tx.notify(notify.cancel(prediction_id))
            else:
                return Prediction.of(row)
            return Prediction.of(tx.connection.execute(change.returning(predictions)).one())

        return await self.database.run(work)

    async def check(self) -> None:
        """Whether anything can be written down now.

        Raises:
            Unavailable: It cannot.
        """
        touched = update(queue).values(id=queue.c.id)
        await self.database.run(lambda tx: tx.connection.execute(touched).rowcount)

    async def backlog(self) -> Backlog:
        """What is not finished yet, counted for whoever scales the fleet."""
        return await self.database.run(backlog_of)

    async def step_times(self) -> Sequence[StepTimes]:
        """How long steps took lately, for each client that reports them."""
        return await self.database.run(step_times_of)

    async def load(self) -> Load:
        """How much there is to do, and how long one takes."""
        return await self.database.run(lambda tx: load_of(tx, self.limits))

    async def delete(self, ids: Sequence[str], key_name: str | None = None) -> int:
        """Remove final predictions and their pictures; gives how many there were.

        Payments stay. One that waits or runs is left alone: cancel it first.
        """

        def work(tx: Transaction) -> tuple[list[Prediction], list[str]]:
            lock_queue(tx)
            query = select(predictions).where(
                predictions.c.id.in_(ids),
                predictions.c.state.in_([state for state in State if state.final]),
            )
            if key_name is not None:
                query = query.where(predictions.c.key_name == key_name)
            found = [Prediction.of(row) for row in tx.connection.execute(query.with_for_update())]
            remove(tx, [one.id for one in found])
            return found, release(tx, [one.input for one in found])

        found, unused = await self.database.run(work)
        await self.pictures.remove_files(unused)
        for image in (image for one in found for image in one.images):
            await self.storage.delete_picture(image.name)
        return len(found)


def remove(tx: Transaction, ids: Sequence[str]) -> None:
    """Remove predictions and what hangs on them, payments apart."""
    found = select(predictions).where(predictions.c.id.in_(ids), predictions.c.findable == 1)
    terms.forget(tx, [Prediction.of(row) for row in tx.connection.execute(found)])
    for table in (attempts, webhooks, scenes):
        tx.connection.execute(delete(table).where(table.c.prediction_id.in_(ids)))
    tx.connection.execute(delete(predictions).where(predictions.c.id.in_(ids)))
    left = exists().where(scenes.c.storyboard_id == storyboards.c.id)
    tx.connection.execute(delete(storyboards).where(~left))
