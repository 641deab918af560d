"""Names of styles: which a model has, and what to say about one that it does not have."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from castmate.errors import InvalidRequest, Problem

NONE = "leave it out: the model has no styles"


def check_style(style: str, known: Sequence[str], model: str) -> None:
    """Refuse a style that a model does not have.

    Args:
        style: Of a request; empty for none.
        known: Those that the model has.
        model: Its name.

    Raises:
        InvalidRequest: Names the styles that there are.
    """
    if not style or style in known:
        return
    near = difflib.get_close_matches(style, known, 1)
    hint = f"did you mean `{near[0]}`?" if near else ""
    allowed = f"{', '.join(known)}, or nothing" if known else NONE
    raise InvalidRequest([Problem("style", f"{model!r} has no style {style!r}", allowed, hint)])
