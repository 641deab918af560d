"""A prediction in the API's words: what every client, the oldest too, can read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from starlette.requests import Request

from castmate.identity import Verdict
from castmate.jobs.predictions import Prediction, State, StoredResult
from castmate.times import rfc3339
from castmate_mcp.http.envelope import business_code, without_paths
from castmate_mcp.http.gateway import Gateway
from castmate_mcp.rest.models import (
    CandidateOut,
    IdentityOut,
    PredictionOut,
    ReferenceOut,
    SelectionOut,
    Status,
    Timings,
    Urls,
)

SYNC_TIMEOUT_CODE: Final = 5004

# Words in an error for which clients submit again on their own, and so pay twice.
_RERUN_WORDS: Final = (
    (re.compile(r"\bHTTP (?=[45]\d\d)", re.IGNORECASE), "status "),
    (re.compile(r"\btime-?out\b", re.IGNORECASE), "time limit"),
    (re.compile(r"\btimed out\b", re.IGNORECASE), "took too long"),
    (re.compile(r"\bconnection", re.IGNORECASE), "link"),
)
# The first release of each client for which `cancelled` is an end.
_KNOWS_CANCELLED: Final = {
    "castmate-studio": (0, 0),
    "wavespeed-python": (2, 0),
    "wavespeed-js": (0, 3),
}


@dataclass(frozen=True)
class Presenter:
    """Presents predictions to one caller.

    Attributes:
        gateway: The server.
        base_url: Its address as the caller sees it.
        knows_cancelled: The caller does not wait for a cancelled prediction for ever.
    """

    gateway: Gateway
    base_url: str
    knows_cancelled: bool = False

    @classmethod
    def to(cls, gateway: Gateway, request: Request) -> Presenter:
        """For who sent a request."""
        return cls(gateway, gateway.base_url(request), _knows_cancelled(request.headers))

    def present(
        self,
        prediction: Prediction,
        *,
        outputs: Sequence[str] | None = None,
        with_input: bool = False,
    ) -> PredictionOut:
        """The prediction on the wire.

        Args:
            prediction: What to present.
            outputs: What stands for its pictures; by default their addresses.
            with_input: Present what was asked, too.
        """
        result, error = prediction.result, prediction.error or {}
        images = prediction.shown
        if outputs is None:
            outputs = [self.gateway.file_url(self.base_url, image.name) for image in images]
        took_ms = _took_ms(prediction)
        return PredictionOut(
            id=prediction.id,
            model=self.gateway.models[0],
            outputs=list(outputs),
            urls=Urls(get=f"{self.base_url}/api/v3/predictions/{prediction.id}/result"),
            has_nsfw_contents=[image.has_nsfw for image in images],
            identity=[identity_of(image.identity) for image in images],
            status=self.status(prediction.state),
            created_at=rfc3339(prediction.created),
            error=for_callers(str(error.get("message", ""))),
            executionTime=took_ms,
            timings=Timings(inference=round(result.timings_ms["total"]) if result else 0),
            seeds=[image.seed for image in images],
            cost_usd=result.cost_usd if result else 0.0,
            warnings=list(result.warnings) if result else [],
            drawn_with=dict(result.drawn_with) if result else {},
            reference=_reference(result),
            no_identity=(result.no_identity or None) if result else None,
            selection=_selection(result),
            code=business_code(str(error["code"])) if error else None,
            waiting_for=_waiting_for(prediction),
            expires_at=rfc3339(prediction.expires) if prediction.expires else None,
            input=_input(prediction) if with_input else None,
        )

    def status(self, state: State) -> Status:
        """A state in the words of the API."""
        if state is State.CANCELLED and not self.knows_cancelled:
            return "failed"
        return state.value


def without_rerun_words(text: str) -> str:
    """An error in other words than those for which a client would submit the task again."""
    for words, instead in _RERUN_WORDS:
        text = words.sub(instead, text)
    return text


def _took_ms(prediction: Prediction) -> int:
    if prediction.started is None or prediction.finished is None:
        return 0
    return max(0, round((prediction.finished - prediction.started) * 1000))


def for_callers(text: str) -> str:
    """An error as someone elsewhere may read it: no paths of this machine, no words to rerun on."""
    return without_rerun_words(without_paths(text))


def _reference(result: StoredResult | None) -> ReferenceOut | None:
    if result is None or result.reference is None:
        return None
    return ReferenceOut.model_validate(asdict(result.reference))


def identity_of(score: float | None) -> IdentityOut | None:
    """A score with its word."""
    return None if score is None else IdentityOut(score=score, verdict=Verdict.of(score))


def _selection(result: StoredResult | None) -> SelectionOut | None:
    if result is None or (selection := result.selection) is None:
        return None
    candidates = [CandidateOut(**asdict(one)) for one in selection.candidates]
    return SelectionOut(candidates=candidates, stopped=selection.stopped)


def _waiting_for(prediction: Prediction) -> str | None:
    return for_callers(str(prediction.waits_for["message"])) if prediction.waits_for else None


def _input(prediction: Prediction) -> dict[str, Any]:
    """What was asked; of the picture only its hash."""
    return prediction.request.model_dump(mode="json", exclude_none=True)


def _knows_cancelled(headers: Mapping[str, str]) -> bool:
    needed = _KNOWS_CANCELLED.get(headers.get("x-client-name", ""))
    version = re.match(r"(\d{1,6})\.(\d{1,6})", headers.get("x-client-version", ""))
    return bool(needed and version and (int(version[1]), int(version[2])) >= needed)
