"""Finished pictures as their owners keep them: given titles, discarded, and restored for a day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sqlalchemy import select, update

from castmate.errors import InvalidRequest, Problem
from castmate.jobs import terms
from castmate.jobs.characters import KEPT_S
from castmate.jobs.database import Transaction, check_storable
from castmate.jobs.ledger import Ledger
from castmate.jobs.predictions import Prediction, StoredImage
from castmate.jobs.tables import predictions

_BATCH: Final = 200

Edit = Callable[[StoredImage, float], StoredImage]
"""What becomes of a picture at a time."""


class Outputs:
    """The finished pictures of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def rename(
        self, prediction_id: str, number: int, title: str, key_name: str | None = None
    ) -> StoredImage:
        """Give a picture a title, by which it is found.

        Args:
            prediction_id: What drew it.
            number: Which of its pictures, from 0.
            title: One line.
            key_name: Who asks; None may change everyone's.

        Raises:
            FileNotFoundError: There is none, or not of this key.
        """
        check_storable("name", title)
        return await self._edit(
            prediction_id, number, key_name, lambda image, now: replace(image, title=title)
        )

    async def discard(
        self, prediction_id: str, number: int, key_name: str | None = None
    ) -> StoredImage:
        """Put a picture away; for a day `restore` brings it back, then it is removed.

        Raises:
            FileNotFoundError: There is none, or not of this key.
        """
        return await self._edit(
            prediction_id, number, key_name, lambda image, now: replace(image, discarded=now)
        )

    async def restore(
        self, prediction_id: str, number: int, key_name: str | None = None
    ) -> StoredImage:
        """Bring back a picture that was discarded; one that was not stays as it is.

        Raises:
            FileNotFoundError: There is none any more, or not of this key.
        """
        return await self._edit(
            prediction_id,
            number,
            key_name,
            lambda image, now: replace(image, discarded=None),
            discarded=True,
        )

    async def remove_discarded(self) -> int:
        """Remove what was discarded a day ago or earlier; gives how many pictures there were."""
        due = select(predictions).where(predictions.c.discarded.is_not(None)).limit(_BATCH)

        def work(tx: Transaction) -> list[Prediction]:
            old = due.where(predictions.c.discarded <= tx.now - KEPT_S)
            return [Prediction.of(row) for row in tx.connection.execute(old)]

        found, now = await self._ledger.database.run(lambda tx: (work(tx), tx.now))
        removed = 0
        for prediction in found:
            gone = [one for one in prediction.images if _is_over(one, now)]
            removed += len(gone)
            if len(gone) == len(prediction.images):
                await self._ledger.delete([prediction.id])
                continue
            for image in gone:
                await self._ledger.storage.delete_picture(image.name)
            left = [one.discarded for one in prediction.images if one not in gone and one.discarded]
            earliest = min(left, default=None)
            await self._ledger.database.run(
                lambda tx, name=prediction.id, first=earliest: (
                    tx.connection.execute(  # type: ignore[misc]
                        update(predictions).where(predictions.c.id == name).values(discarded=first)
                    ).rowcount
                )
            )
        return removed

    async def _edit(
        self,
        prediction_id: str,
        number: int,
        key_name: str | None,
        edit: Edit,
        discarded: bool = False,
    ) -> StoredImage:
        def work(tx: Transaction) -> StoredImage | None:
            query = select(predictions).where(predictions.c.id == prediction_id).with_for_update()
            if key_name is not None:
                query = query.where(predictions.c.key_name == key_name)
            row = tx.connection.execute(query).one_or_none()
            found = None if row is None else Prediction.of(row)
            if found is None or found.result is None or number >= len(found.images):
                return None
            image = found.images[number]
            if _is_over(image, tx.now) or (image.discarded is not None and not discarded):
                return None
            edited = edit(image, tx.now)
            images = (*found.images[:number], edited, *found.images[number + 1 :])
            times = [one.discarded for one in images if one.discarded is not None]
            result = replace(found.result, images=images)
            values = {"result": result.to_json(), "discarded": min(times, default=None)}
            tx.connection.execute(
                update(predictions).where(predictions.c.id == prediction_id).values(values)
            )
            if row is not None and row.findable and edited.title != image.title:
                terms.forget(tx, [found])
                terms.write(tx, replace(found, result=result))
            return edited

        if (image := await self._ledger.database.run(work)) is None:
            raise FileNotFoundError(prediction_id)
        return image


def one_line(title: str) -> str:
    """A title without the space around it.

    Raises:
        InvalidRequest: Nothing is left of it.
    """
    if line := " ".join(title.split()):
        return line
    raise InvalidRequest([Problem("name", "is empty", "text in one line")])


def _is_over(image: StoredImage, now: float) -> bool:
    """Whether a picture was discarded so long ago that it cannot be restored."""
    return image.discarded is not None and image.discarded <= now - KEPT_S
