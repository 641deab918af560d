"""Finished pictures as they are looked for: by words, character, style and date, the newest first.

A page begins behind the last picture of the page before, so pictures that are finished meanwhile
move nothing: none is shown twice, and none that was there is left out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, select

from castmate.jobs import terms
from castmate.jobs.database import Database
from castmate.jobs.predictions import Prediction, State, StoredImage, first_id
from castmate.jobs.tables import predictions

_PAGE: Final = 100


@dataclass(frozen=True)
class Wanted:
    """Which pictures.

    Attributes:
        key_name: Whose.
        text: Words of the prompt or title, all of which have to be there; empty for any.
        references: SHA-256 of pictures from one of which they were drawn; None for any.
        style: Of the model; empty for any.
        since: Submitted then or later, seconds since 1970.
        until: Submitted earlier, the same.
    """

    key_name: str
    text: str = ""
    references: Sequence[str] | None = None
    style: str = ""
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True)
class Found:
    """One finished picture.

    Attributes:
        prediction: What drew it.
        number: Which of its pictures, from 0.
    """

    prediction: Prediction
    number: int

    @property
    def image(self) -> StoredImage:
        """The picture."""
        return self.prediction.images[self.number]


class Gallery:
    """The finished pictures of a ledger, for whoever looks for some of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(
        self, wanted: Wanted, behind: tuple[str, int] | None = None, page: int = _PAGE
    ) -> AsyncIterator[Found]:
        """Pictures, the newest first; those of one prediction in their own order.

        Args:
            wanted: Which.
            behind: The last picture that is known: its prediction and its number.
            page: How many predictions are read at a time.
        """
        words = terms.words_of(wanted.text)
        if wanted.text.strip() and not words:
            return  # nothing that could be looked for is in any prompt
        query = _query(wanted, words).limit(page)
        some = query if behind is None else query.where(predictions.c.id <= behind[0])
        while True:
            rows = await self._read(some)
            for prediction in rows:
                for number, image in enumerate(prediction.images):
                    shown = behind and prediction.id == behind[0] and number <= behind[1]
                    if shown or image.discarded is not None:
                        continue
                    if _fits(words, prediction.request.prompt, image.title):
                        yield Found(prediction, number)
            if len(rows) < page:
                return
            some = query.where(predictions.c.id < rows[-1].id)

    async def _read(self, query: Select[Any]) -> list[Prediction]:
        return await self._database.run(
            lambda tx: [Prediction.of(row) for row in tx.connection.execute(query)]
        )

    async def let_all_be_found(self) -> int:
        """Make findable what earlier releases have completed; gives how many predictions it was."""
        count = 0
        while some := await self._database.run(terms.write_some):
            count += some
        return count


def _query(wanted: Wanted, words: Sequence[str]) -> Select[Any]:
    key_name = wanted.key_name
    query = (
        select(predictions)
        .where(predictions.c.key_name == key_name, predictions.c.state == State.COMPLETED)
        .order_by(predictions.c.id.desc())
    )
    found = [terms.with_word(key_name, word) for word in words]
    if wanted.style:
        found.append(terms.with_style(key_name, wanted.style))
    if wanted.references is not None:
        found.append(terms.with_reference(key_name, wanted.references))
    for ids in found:
        query = query.where(predictions.c.id.in_(ids))
    if wanted.since is not None:
        query = query.where(predictions.c.id >= first_id(wanted.since))
    if wanted.until is not None:
        query = query.where(predictions.c.id < first_id(wanted.until))
    return query


def _fits(words: Sequence[str], prompt: str, title: str) -> bool:
    """Whether a picture has every word, itself or in the prompt of all."""
    known = terms.words_of(f"{prompt}\n{title}") if words else []
    return all(terms.begins(word, known) for word in words)
