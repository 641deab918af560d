"""One row that somebody names by its id, if it is theirs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, Table, select

from castmate.errors import PredictionNotFound
from castmate.jobs.database import Transaction


def look_up(
    tx: Transaction, table: Table, id_: str, key_name: str | None, *, lock: bool = False
) -> Row[Any]:
    """A prediction or a storyboard.

    Args:
        tx: Where it is looked up.
        table: `predictions` or `storyboards`.
        id_: Its id.
        key_name: Who asks; None may see everything. What belongs to others is not there.
        lock: Keep it as it is until the transaction ends.

    Raises:
        PredictionNotFound: There is none of this id and key; it may have been swept.
    """
    query = select(table).where(table.c.id == id_)
    if key_name is not None:
        query = query.where(table.c.key_name == key_name)
    row = tx.connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise not_found(table, id_)
    return row


def not_found(table: Table, id_: str) -> PredictionNotFound:
    """The error for an id that stands for nothing."""
    return PredictionNotFound(
        f"There is no {table.name.removesuffix('s')} {id_!r}. Ids are what a submit returned; "
        "finished ones are removed after a time."
    )
