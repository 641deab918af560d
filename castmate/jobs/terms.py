"""By what finished pictures are found: words of the prompt and titles, the style, the reference.

One table holds them all, so that any mixture of them is looked up in one index on both databases.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Row, Select, delete, insert, select, update

from castmate.jobs.database import Transaction
from castmate.jobs.predictions import Prediction, State
from castmate.jobs.tables import predictions, search_terms

_BATCH: Final = 200
_MOST_WORDS: Final = 256  # of a picture
_LONGEST_WORD: Final = 64  # characters: longer ones fit in no index of PostgreSQL's
_SHORTEST_START: Final = 3  # characters from which a word is found by its beginning
# Han and kana stand side by side without spaces: each is a word.
_ALONE: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD: Final = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
_AFTER_ALL: Final = "g"  # behind every hex digit
_STYLE, _REFERENCE = "\0style\0", "\0reference\0"  # no word has a NUL


def words_of(text: str) -> list[str]:
    """The words of a text as they are compared, each once, in order."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return [*dict.fromkeys(word[:_LONGEST_WORD] for word in _WORD.findall(folded))]


def begins(word: str, words: Sequence[str]) -> bool:
    """Whether a word is among others; from three letters on, whether one of them begins with it."""
    if len(word) < _SHORTEST_START:
        return word in words
    return any(one.startswith(word) for one in words)


def with_word(key_name: str, word: str) -> Select[tuple[str]]:
    """The ids of a key's predictions in which `begins` finds a word, in the prompt or a title."""
    first = _term(word)
    if len(word) < _SHORTEST_START:
        return _with(key_name, [first])
    return select(search_terms.c.prediction_id).where(
        search_terms.c.key_name == key_name,
        search_terms.c.term >= first,
        search_terms.c.term < first + _AFTER_ALL,
    )


def with_style(key_name: str, style: str) -> Select[tuple[str]]:
    """The ids of a key's predictions that were drawn in a style."""
    return _with(key_name, [_term(_STYLE + style)])


def with_reference(key_name: str, hashes: Sequence[str]) -> Select[tuple[str]]:
    """The ids of a key's predictions that were drawn from any of some pictures."""
    return _with(key_name, [_term(_REFERENCE + sha256) for sha256 in hashes])


def write(tx: Transaction, prediction: Prediction) -> None:
    """Let a completed prediction be found from now on."""
    values = [
        {"key_name": prediction.key_name, "term": term, "prediction_id": prediction.id}
        for term in _terms_of(prediction)
    ]
    tx.connection.execute(insert(search_terms), values)
    written = update(predictions).where(predictions.c.id == prediction.id).values(findable=1)
    tx.connection.execute(written)


def forget(tx: Transaction, found: Sequence[Prediction]) -> None:
    """Let predictions be found no more, as they are found now."""
    for one in found:
        tx.connection.execute(
            delete(search_terms).where(
                search_terms.c.key_name == one.key_name,
                search_terms.c.term.in_(_terms_of(one)),
                search_terms.c.prediction_id == one.id,
            )
        )


def write_some(tx: Transaction) -> int:
    """Do so for some that an earlier release has completed; gives how many there were."""
    missing = (
        select(predictions)
        .where(predictions.c.state == State.COMPLETED, predictions.c.findable.is_(None))
        .order_by(predictions.c.id)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
    rows: Sequence[Row[tuple[object, ...]]] = tx.connection.execute(missing).all()
    for row in rows:
        write(tx, Prediction.of(row))
    return len(rows)


def _with(key_name: str, terms: Sequence[str]) -> Select[tuple[str]]:
    return select(search_terms.c.prediction_id).where(
        search_terms.c.key_name == key_name, search_terms.c.term.in_(terms)
    )


def _terms_of(prediction: Prediction) -> list[str]:
    request = prediction.request
    text = "\n".join([request.prompt, *(image.title for image in prediction.images)])
    found = words_of(text)[:_MOST_WORDS]
    found += [_REFERENCE + sha256 for sha256 in prediction.references]
    if request.style:
        found.append(_STYLE + request.style)
    return [_term(one) for one in found]


def _term(text: str) -> str:
    """As it stands in the table: in hex it sorts alike on every database, whatever its locale."""
    return text.encode().hex()
