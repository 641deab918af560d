"""Removes what is old: finished predictions, and files that nothing needs any more."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy import select

from castmate.jobs.characters import Characters
from castmate.jobs.database import Transaction
from castmate.jobs.ledger import Ledger, remove
from castmate.jobs.outputs import Outputs
from castmate.jobs.predictions import State
from castmate.jobs.storage import (
    CHARACTERS,
    DAY_S,
    INPUTS,
    OUTPUTS,
    PREVIEWS,
    SHEETS,
    UPLOADS,
    UPLOADS_KEPT_S,
    StoredObject,
)
from castmate.jobs.tables import characters, expires, pictures, predictions, storyboards
from castmate.times import day_of

_BATCH: Final = 200
_OUTPUT: Final = re.compile(rf"(?:{PREVIEWS}/)?{OUTPUTS}/([0-9a-f]{{32}})-(\d+)/")
_SHEET: Final = re.compile(rf"(?:{PREVIEWS}/)?{SHEETS}/([0-9a-f]{{32}})-")
_PICTURE: Final = re.compile(rf"{CHARACTERS}/(chr_[0-9a-f]{{16}})-\d")
# Files younger than this may belong to a row that is about to be written.
GRACE_S: Final = float(DAY_S)


class _Needed(Protocol):
    def __call__(self, tx: Transaction, found: Sequence[StoredObject]) -> set[str]: ...


@dataclass(frozen=True)
class Swept:
    """What a sweep removed."""

    predictions: int
    files: int


async def sweep(ledger: Ledger, keep_s: float | None = None) -> Swept:
    """Remove finished predictions that are old enough, and files that belong to nothing.

    Payments and characters stay. It may run in several processes, and be killed at any time.

    Args:
        ledger: Of which.
        keep_s: How long every prediction is kept once it is final; None is for each as long as was
            said when it was submitted.
    """
    removed = 0
    while count := await ledger.database.run(lambda tx: _remove_rows(tx, keep_s)):
        removed += count
    removed += await Outputs(ledger).remove_discarded()
    await Characters(ledger.database, ledger.pictures).remove_discarded()
    unused = await ledger.pictures.remove_unused()
    before = ledger.clock() - GRACE_S
    outputs = await _sweep_files(ledger, OUTPUTS, before, _needed_outputs)
    sheets = await _sweep_files(ledger, SHEETS, before, _needed_sheets)
    previews = await _sweep_files(ledger, f"{PREVIEWS}/{OUTPUTS}", before, _needed_outputs)
    previews += await _sweep_files(ledger, f"{PREVIEWS}/{SHEETS}", before, _needed_sheets)
    for folder in (INPUTS, UPLOADS, CHARACTERS):  # small ones are made again where they are needed
        previews += await _sweep_files(ledger, f"{PREVIEWS}/{folder}", before, _nothing)
    inputs = await _sweep_files(ledger, INPUTS, before, _needed_inputs)
    saved = await _sweep_files(ledger, CHARACTERS, before, _needed_pictures)
    kept_until = ledger.clock() - UPLOADS_KEPT_S
    uploads = await _sweep_files(ledger, UPLOADS, kept_until, _registered)
    return Swept(removed, unused + outputs + sheets + previews + inputs + saved + uploads)


def _remove_rows(tx: Transaction, keep_s: float | None) -> int:
    over = expires < tx.now if keep_s is None else predictions.c.finished < tx.now - keep_s
    old = select(predictions.c.id).where(over).limit(_BATCH)
    ids = list(tx.connection.execute(old).scalars())
    remove(tx, ids)
    return len(ids)


async def _sweep_files(ledger: Ledger, prefix: str, before: float, needed: _Needed) -> int:
    removed = 0
    async for chunk in ledger.storage.list(prefix):
        old = [found for found in chunk if found.modified < before]
        if not old:
            continue
        keep = await ledger.database.run(functools.partial(needed, found=old))
        for found in old:
            if found.name not in keep:
                await ledger.storage.delete(found.name)
                removed += 1
    return removed


def _needed_outputs(tx: Transaction, found: Sequence[StoredObject]) -> set[str]:
    """Of a finished prediction only what its last attempt made, where that completed."""
    parts = {item.name: match for item in found if (match := _OUTPUT.match(item.name))}
    query = select(predictions.c.id, predictions.c.attempt, predictions.c.state).where(
        predictions.c.id.in_({match[1] for match in parts.values()})
    )
    rows = {row.id: row for row in tx.connection.execute(query)}
    unknown = {item.name for item in found} - parts.keys()  # not ours: leave it alone
    return unknown | {
        name
        for name, match in parts.items()
        if (row := rows.get(match[1]))
        and (
            not State(row.state).final
            or (row.state == State.COMPLETED and row.attempt == int(match[2]))
        )
    }


def _nothing(tx: Transaction, found: Sequence[StoredObject]) -> set[str]:
    return set()


def _needed_sheets(tx: Transaction, found: Sequence[StoredObject]) -> set[str]:
    """Those of series that are still there; one that is removed too early is made again."""
    boards = {item.name: match[1] for item in found if (match := _SHEET.match(item.name))}
    query = select(storyboards.c.id).where(storyboards.c.id.in_(set(boards.values())))
    kept = set(tx.connection.execute(query).scalars())
    unknown = {item.name for item in found} - boards.keys()  # not ours: leave it alone
    return unknown | {name for name, board in boards.items() if board in kept}


def _needed_inputs(tx: Transaction, found: Sequence[StoredObject]) -> set[str]:
    """A submit names only the folder of its own day; older ones are safe to judge."""
    names = [item.name for item in found]
    used = select(predictions.c.input).where(predictions.c.input.in_(names)).distinct()
    yesterday = f"{INPUTS}/{day_of(tx.now - DAY_S)}"
    recent = {name for name in names if name >= yesterday}
    return recent | set(tx.connection.execute(used).scalars()) | _registered(tx, found)


def _registered(tx: Transaction, found: Sequence[StoredObject]) -> set[str]:
    """Those that callers have sent, and that are still kept for them."""
    names = [item.name for item in found]
    kept = select(pictures.c.name).where(pictures.c.name.in_(names))
    return set(tx.connection.execute(kept).scalars())


def _needed_pictures(tx: Transaction, found: Sequence[StoredObject]) -> set[str]:
    """Of what earlier releases kept for each character, that of those that are still there."""
    owners = {item.name: match[1] for item in found if (match := _PICTURE.fullmatch(item.name))}
    query = select(characters.c.id).where(characters.c.id.in_(set(owners.values())))
    saved = set(tx.connection.execute(query).scalars())
    unknown = {item.name for item in found} - owners.keys()  # not ours: leave it alone
    return unknown | {name for name, owner in owners.items() if owner in saved}
