"""Translates WaveSpeed's failures: what happened, what it cost and what to do next."""

from __future__ import annotations

import re
from collections.abc import Mapping

from castmate.clients.wavespeed.api import Refused
from castmate.clients.wavespeed.limit import MINUTE_S
from castmate.clients.wavespeed.replies import RemotePrediction
from castmate.errors import (
    CastmateError,
    DeadlineExceeded,
    Incapable,
    InvalidRequest,
    MaybeCharged,
    Overloaded,
    Problem,
    Unavailable,
)
from castmate.schema import GenerateRequest

_MODERATED, _BAD_INPUT, _NO_MEDIA, _TIMED_OUT = 1200, (1400, 1401), 1402, 5004
_REFUND = "WaveSpeed refunds failed tasks, by its documentation within 3 hours."


def no_key() -> Unavailable:
    """There is no key, so nothing may be sent."""
    return _for_a_person(
        "WaveSpeed needs a key: set CASTMATE_WAVESPEED_API_KEY. Nothing was sent or charged."
    )


def no_transparency() -> Incapable:
    """The hosted model draws no transparent background."""
    return Incapable(
        "WaveSpeed's hosted model draws no transparent background. Nothing was sent or charged. "
        "Set `background` to scene, or draw where the bundle has a matte graph."
    )


def no_account() -> Unavailable:
    """No ledger records payments, so nothing may be paid for."""
    return _for_a_person(
        "WaveSpeed costs money, and nothing here keeps accounts or enforces a budget. Nothing was "
        "sent or charged."
    )


def cannot_choose() -> Incapable:
    """The request chooses among candidates, but hosted pictures are not judged."""
    return Incapable(
        "WaveSpeed's hosted pictures are not judged, so there are no candidates. Nothing was sent "
        "or charged. Leave num_candidates and min_identity out, or draw where the bundle has an "
        "identity graph."
    )


def no_styles(style: str) -> Unavailable:
    """The request names a style, but the hosted model has none."""
    return _for_a_person(
        f"WaveSpeed's hosted model has no styles, so it cannot draw in {style!r}; leave `style` "
        "out to have it drawn there. Nothing was sent or charged."
    )


def unreached(reason: object) -> Unavailable:
    """The paid request was never sent."""
    return Unavailable(f"WaveSpeed cannot be reached ({reason}). Nothing was charged.")


def lost(number: int, price_usd: float, reason: object) -> MaybeCharged:
    """The paid request was sent, and its outcome is unknown."""
    return MaybeCharged(
        f"WaveSpeed was asked for picture {number}, but its reply was lost: {reason}. It may have "
        f"charged ${price_usd:.2f}. Castmate does not ask again by itself: check the history of "
        "your WaveSpeed account first, then make a new request."
    )


def refusal(refused: Refused) -> CastmateError:
    """WaveSpeed rejected the paid request."""
    said = f" Its message: {refused.message}." if refused.message else ""
    match refused.status:
        case 429:
            wait_s = refused.retry_after_s or MINUTE_S
            return Overloaded(
                f"This account has reached WaveSpeed's limit for now.{said} Nothing was charged. "
                f"Try again in {wait_s:.0f} s, or raise the account's tier.",
                retry_after_s=wait_s,
            )
        case 401:
            why = "rejected the key. Check CASTMATE_WAVESPEED_API_KEY."
        case 402:
            why = "says that the account is out of funds. Top it up."
        case 403:
            why = "denied this account access. A key works after the account's first top-up."
        case 404:
            why = "does not know the model. Check CASTMATE_WAVESPEED_MODEL."
        case status if 300 <= status < 400:
            why = (
                "redirected the request, which was not followed. Check CASTMATE_WAVESPEED_BASE_URL."
            )
        case 400 | 413 | 422:
            return _bad_input(refused.message)
        case status:
            return Unavailable(
                f"WaveSpeed refused the request (HTTP status {status}). Try again later.{said} "
                "Nothing was charged."
            )
    return _for_a_person(f"WaveSpeed {why}{said} Nothing was charged.")


def failed(number: int, remote: RemotePrediction, reason: str) -> CastmateError:
    """WaveSpeed accepted the request but made no picture.

    Args:
        number: The picture's number.
        remote: The failed prediction.
        reason: WaveSpeed's, cleaned so that an error may show it.
    """
    said = f": {reason}" if reason else ""
    about = f"picture {number} (prediction {remote.id})"
    error: CastmateError
    if remote.code == _MODERATED:
        problem = Problem(
            "prompt",
            f"WaveSpeed's content moderation refused {about}{said}",
            hint=f"Change the prompt or the reference. {_REFUND}",
        )
        error = InvalidRequest([problem])
    elif remote.code in _BAD_INPUT:
        error = _bad_input(reason)
    elif remote.code == _TIMED_OUT or remote.status == "timeout":
        error = DeadlineExceeded(f"WaveSpeed ran out of time with {about}{said}. {_REFUND}")
    elif remote.status in ("cancelled", "canceled", "deleted"):
        error = Unavailable(
            f"WaveSpeed says that {about} was {remote.status}{said}. Make a new request."
        )
    elif remote.status == "completed":
        error = Unavailable(f"WaveSpeed completed {about} without a picture{said}. {_REFUND}")
    else:
        error = Unavailable(f"WaveSpeed failed to make {about}{said}. {_REFUND} Try another seed.")
    error.charged = None
    error.passes = False  # another attempt would be another payment
    return error


def reads_no_upload(remote: RemotePrediction) -> bool:
    """Whether it failed because the uploaded reference can no longer be read."""
    return remote.code == _NO_MEDIA


def unfinished(number: int, remote_id: str, timeout_s: float) -> DeadlineExceeded:
    """The picture is still being made."""
    return DeadlineExceeded(
        f"WaveSpeed has not finished picture {number} (prediction {remote_id}) within "
        f"{timeout_s:g} s and is still working on it."
    )


def forgotten(number: int, remote_id: str) -> Unavailable:
    """The picture was paid for, but WaveSpeed no longer knows it."""
    error = Unavailable(
        f"WaveSpeed no longer knows picture {number} (prediction {remote_id}): it keeps results "
        "for 7 days. It was charged; a new request would be charged again."
    )
    error.charged, error.passes = True, False
    return error


def undelivered(number: int, remote_id: str, reason: str) -> Unavailable:
    """The picture was made and paid for, but its file cannot be downloaded."""
    return Unavailable(
        f"WaveSpeed made picture {number} (prediction {remote_id}), but its file cannot be "
        f"downloaded: {reason}. Look for it in your WaveSpeed account; files are kept for 7 days."
    )


def unasked(number: int, remote_id: str, reason: object) -> Unavailable:
    """The picture was paid for, but WaveSpeed does not report its status."""
    return Unavailable(
        f"WaveSpeed does not report the status of picture {number} (prediction {remote_id}): "
        f"{reason}."
    )


def with_paid(error: CastmateError, paid: Mapping[int, str]) -> CastmateError:
    """The error, with the request's pictures that were paid for nonetheless."""
    if paid:
        names = ", ".join(f"picture {i + 1} (prediction {name})" for i, name in paid.items())
        message = re.sub(r"[Nn]othing was (sent or )?charged", r"\g<0> for this one", str(error))
        it = "it" if len(paid) == 1 else "them"
        error.args = (
            f"{message} Charged so far: {names}; another attempt of the same prediction fetches "
            f"{it} instead of paying again.",
        )
        if error.charged is False:
            error.charged = True
    return error


def _for_a_person(message: str) -> Unavailable:
    """An error that waiting does not cure: a person has to act first."""
    error = Unavailable(message)
    error.passes = False
    return error


def _bad_input(reason: str) -> InvalidRequest:
    named = [name for name in GenerateRequest.model_fields if re.search(rf"\b{name}\b", reason)]
    message = f"WaveSpeed's hosted model refuses it{f': {reason}' if reason else ''}"
    return InvalidRequest([Problem(named[0] if named else "request", message, hint="Change it.")])
