"""The one error tree; leaves are named by what the caller does next.

CastmateError
├── InvalidRequest         change the request: which parameter, what is allowed
│   └── ImageRejected      change the reference image
├── Unavailable            try elsewhere or later: nothing is wrong with the request
│   ├── Incapable          ... only elsewhere: this client lacks what the request needs
│   ├── Overloaded         ... after `retry_after_s`
│   ├── DeadlineExceeded   ... with more time
│   └── BudgetExceeded     ... or raise the cap: this client costs money
│       └── NotAgreed      ... or ask whoever pays: nobody has agreed to pay for it
├── MaybeCharged           look at the account before trying again: a paid reply was lost
├── Cancelled              nothing: the caller asked for it
├── LeaseLost              nothing: another process has taken over the work
├── Interrupted            submit again: whoever worked on it died, several times
├── PredictionNotFound     correct the id
├── IdempotencyConflict    use a new idempotency key: this one stands for another request
├── QuotaExceeded          delete pictures first: this key stores as many as it may
├── BundleError            repair the installation
│   ├── BundleNotFound     install or name another bundle
│   ├── BundleCorrupt      a file is missing or changed: reinstall or export again
│   └── BundleMismatch     made for other code, GPU or sizes: export again
└── SettingsError          change a CASTMATE_* variable or a flag

Every edge (CLI, MCP, REST, Triton) translates these and nothing else; any other exception is a bug.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


class CastmateError(Exception):
    """The base; `str(error)` is one sentence for a person or a model, `code` is for programs."""

    code: ClassVar[str] = "error"
    charged: bool | None = False  # None if unknown
    passes: bool = False  # whether waiting alone may help
    died: bool = False  # whether the drawing process died or fell silent

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON, the same for every edge."""
        return {"code": self.code, "message": str(self), "charged": self.charged}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request.

    Attributes:
        parameter: Name of the parameter.
        message: What is wrong, with the given value.
        allowed: What is allowed, or an empty string if `message` says so.
        hint: What to do next, or an empty string.
    """

    parameter: str
    message: str
    allowed: str = ""
    hint: str = ""

    def __str__(self) -> str:
        parts = [f"`{self.parameter}`: {self.message}"]
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.hint:
            parts.append(self.hint)
        return "; ".join(parts)


def from_dict(values: Mapping[str, Any]) -> CastmateError:
    """Restore the error from `as_dict`; an unknown code becomes a `CastmateError`.

    Raises:
        KeyError: Code or message is missing.
        TypeError: One of its problems is malformed.
    """
    kinds = {kind.code: kind for kind in _kinds(CastmateError)}
    kind = kinds.get(values["code"], CastmateError)
    error = kind.__new__(kind, values["message"])  # constructors differ
    error.charged = values.get("charged", False)
    if isinstance(error, InvalidRequest):
        problems = [Problem(**problem) for problem in values.get("problems", ())]
        error.problems = tuple(problems or [Problem("request", values["message"])])
    if isinstance(error, Unavailable):
        causes = values.get("causes", {})
        error.causes = {name: from_dict(cause) for name, cause in causes.items()}
    if isinstance(error, Overloaded):
        error.retry_after_s = float(values.get("retry_after_s", 0))
    return error


def _kinds(kind: type[CastmateError]) -> Iterator[type[CastmateError]]:
    yield kind
    for leaf in kind.__subclasses__():
        yield from _kinds(leaf)


class InvalidRequest(CastmateError):
    """The request cannot be fulfilled as it stands; nothing was generated or charged."""

    code = "invalid_request"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def as_dict(self) -> dict[str, Any]:
        """Like the base, with each problem listed."""
        return super().as_dict() | {"problems": [asdict(problem) for problem in self.problems]}


class ImageRejected(InvalidRequest):
    """The reference image cannot be used."""

    code = "image_rejected"

    def __init__(self, message: str, *, allowed: str = "", hint: str = "") -> None:
        super().__init__([Problem("image", message, allowed, hint)])


class Unavailable(CastmateError):
    """This client cannot make the picture now; another one may."""

    code = "unavailable"
    passes = True

    def __init__(self, message: str, *, causes: Mapping[str, CastmateError] | None = None) -> None:
        """Describe what happened.

        Args:
            message: One sentence or more.
            causes: If several clients were asked, the error of each by its name.
        """
        self.causes = dict(causes or {})
        super().__init__(message)

    def as_dict(self) -> dict[str, Any]:
        """Like the base, with the error of each client if several were asked."""
        causes = {name: error.as_dict() for name, error in self.causes.items()}
        return super().as_dict() | ({"causes": causes} if causes else {})


class Incapable(Unavailable):
    """This client draws, but not what the request asks for; another one may."""

    code = "incapable"
    passes = False


class Overloaded(Unavailable):
    """Too much work is waiting."""

    code = "overloaded"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float,
        causes: Mapping[str, CastmateError] | None = None,
    ) -> None:
        """Describe what is full.

        Args:
            message: One sentence or more.
            retry_after_s: When to try again.
            causes: If several clients were asked, the error of each by its name.
        """
        self.retry_after_s = retry_after_s
        super().__init__(message, causes=causes)

    def as_dict(self) -> dict[str, Any]:
        """Like the base, with the time to wait in seconds."""
        return super().as_dict() | {"retry_after_s": self.retry_after_s}


class DeadlineExceeded(Unavailable):
    """The picture was not finished in the time allowed."""

    code = "deadline_exceeded"


class BudgetExceeded(Unavailable):
    """Making it would exceed a spending cap; nothing was sent."""

    code = "budget_exceeded"
    passes = False


class NotAgreed(BudgetExceeded):
    """Making it would cost money that nobody has agreed to; nothing was sent."""

    code = "not_agreed"


class MaybeCharged(CastmateError):
    """A paid submission was sent and its reply was lost; it is never resent automatically."""

    code = "maybe_charged"
    charged = None


class Cancelled(CastmateError):
    """The caller cancelled the generation between two steps."""

    code = "cancelled"


class LeaseLost(CastmateError):
    """This attempt has lost its lease, and another has taken over its work."""

    code = "lease_lost"


class Interrupted(CastmateError):
    """Every process that worked on the prediction died; it is not retried."""

    code = "interrupted"


class PredictionNotFound(CastmateError):
    """There is no such prediction, or it belongs to another key."""

    code = "prediction_not_found"


class QuotaExceeded(CastmateError):
    """The caller stores as much on the server as it may."""

    code = "quota_exceeded"


class IdempotencyConflict(CastmateError):
    """The idempotency key was already used for a different request."""

    code = "idempotency_conflict"


class BundleError(CastmateError):
    """The model's bundle cannot be used."""

    code = "bundle_error"


class BundleNotFound(BundleError):
    """There is no bundle of that name or path."""

    code = "bundle_not_found"


class BundleCorrupt(BundleError):
    """A file of the bundle is missing, changed or unreadable."""

    code = "bundle_corrupt"


class BundleMismatch(BundleError):
    """The bundle is whole, but was made for other code, another GPU or other sizes."""

    code = "bundle_mismatch"


class SettingsError(CastmateError):
    """A setting is wrong."""

    code = "settings_error"
