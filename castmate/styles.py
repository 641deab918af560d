"""Checks names of styles against those that a model has."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from castmate.errors import InvalidRequest, Problem

NONE = "leave it out: the model has no styles"


def check_style(style: str, known: Sequence[str], model: str) -> None:
    """Check that a model has a style.

    Args:
        style: The request's style; empty for none.
        known: The model's styles.
        model: Its name.

    Raises:
        InvalidRequest: It does not; names the styles that it has.
    """
    if not style or style in known:
        return
    near = difflib.get_close_matches(style, known, 1)
    hint = f"did you mean `{near[0]}`?" if near else ""
    allowed = f"{', '.join(known)}, or nothing" if known else NONE
    raise InvalidRequest([Problem("style", f"{model!r} has no style {style!r}", allowed, hint)])
