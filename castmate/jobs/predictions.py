"""What a prediction is: one submitted generation, its states, its attempts and its result."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Row

from castmate.identity import Selection
from castmate.schema import (
    FramedReference,
    GeneratedImage,
    GenerateRequest,
    GenerateResult,
    ImageRecord,
    OutputFormat,
)


class State(StrEnum):
    """Where a prediction is; the last three are final."""

    CREATED = "created"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Nothing changes any more."""
        return self in (State.COMPLETED, State.FAILED, State.CANCELLED)


class Outcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RELEASED = "released"  # its process was stopped in order and gave the work back
    DEFERRED = "deferred"  # no client could draw: it waits until one can
    DIED = "died"  # its process was silent for longer than its lease


@dataclass(frozen=True)
class Attempt:
    """One go at a prediction.

    Attributes:
        number: From 1.
        owner: Which worker.
        started: Seconds since 1970.
        finished: The same, or None while it runs.
        outcome: How it ended, or None while it runs.
        client: Which client made the pictures, where some were made.
        error: Why it failed, as JSON; what each client said is in it.
    """

    number: int
    owner: str
    started: float
    finished: float | None
    outcome: Outcome | None
    client: str | None
    error: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class StoredImage(ImageRecord):
    """A finished picture whose bytes are in the storage.

    Attributes:
        name: Under which.
        num_bytes: Of its file.
        title: What its owner calls it, or empty.
        discarded: Since when it is kept only to be restored, seconds since 1970; None where it is
            in use.
    """

    name: str
    num_bytes: int
    title: str = ""
    discarded: float | None = None


@dataclass(frozen=True)
class StoredResult:
    """A `GenerateResult` whose pictures are in the storage.

    Attributes:
        references: The SHA-256 of every picture of the character that was drawn from, the best
            first; empty where there was one, which is the request's `image`.
    """

    images: tuple[StoredImage, ...]
    client: str
    model: str
    timings_ms: Mapping[str, float]
    warnings: tuple[str, ...]
    cost_usd: float
    computed_steps: int | None = None
    drawn_with: Mapping[str, Any] = field(default_factory=dict)
    reference: FramedReference | None = None
    no_identity: str = ""
    selection: Selection | None = None
    model_hash: str = ""
    references: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, result: GenerateResult, names: Sequence[str], references: Sequence[str] = ()
    ) -> Self:
        """The result of drawing.

        Args:
            result: It.
            names: Under which each of its pictures was stored.
            references: See above.
        """
        images = tuple(
            StoredImage(name=name, num_bytes=len(image.data), **image.record())
            for name, image in zip(names, result.images, strict=True)
        )
        return cls(images=images, references=tuple(references), **_besides_images(result))

    async def load(self, read: Callable[[str], Awaitable[bytes]]) -> GenerateResult:
        """The result with its pictures, each read by its name."""
        images = [
            GeneratedImage(data=await read(image.name), **image.record()) for image in self.images
        ]
        return GenerateResult(images=tuple(images), **_besides_images(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote; what only later releases know is left out."""
        known = {one.name for one in fields(cls)}
        values = {name: value for name, value in json.loads(text).items() if name in known}
        images = tuple(
            StoredImage(**image | {"output_format": OutputFormat(image["output_format"])})
            for image in values.pop("images")
        )
        values["warnings"] = tuple(values["warnings"])
        values["reference"] = FramedReference.parse(values.get("reference"))
        values["selection"] = Selection.parse(values.get("selection"))
        values["references"] = tuple(values.get("references", ()))
        return cls(images, **values)

    def to_json(self) -> str:
        """As it stands in the ledger."""
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True)
class Prediction:
    """One submitted generation.

    Attributes:
        id: 32 hex digits that sort by time.
        key_name: Whose it is: the name of an API key, never the key.
        state: Where it is.
        request: What was asked; its `image` names the stored reference.
        input: The reference's name in the storage.
        attempt: How many attempts there were; the last one counts.
        cancel_requested: Someone wants it to stop.
        created: Seconds since 1970.
        started: When its last attempt began.
        finished: When it became final.
        result: The pictures, where it is completed.
        error: `CastmateError.as_dict`, where it failed or was cancelled.
        note: What the door that took it wants to remember; the ledger does not look at it.
        attempts: Every attempt, the oldest first; only where one prediction is asked for.
        may_spend: Whether a client that costs money may make it, within the caps.
        joined: Whether an earlier submit took it; only what `Ledger.submit` returns says so.
        waits_for: Why no client could draw it, `CastmateError.as_dict`, while it waits for one.
        not_before: When it is tried again, seconds since 1970, while it waits for a client.
        keep_s: How long it is kept once it is final; None is for ever.
        traceparent: The span of the request that submitted it, where requests are traced.
        progress: How far it is, as its worker has written it; see `castmate.jobs.progress`.
    """

    id: str
    key_name: str
    state: State
    request: GenerateRequest = field(repr=False)
    input: str = field(repr=False)
    attempt: int
    cancel_requested: bool
    created: float
    started: float | None = None
    finished: float | None = None
    result: StoredResult | None = None
    error: Mapping[str, Any] | None = None
    note: str | None = None
    attempts: tuple[Attempt, ...] = ()
    may_spend: bool = True
    joined: bool = False
    waits_for: Mapping[str, Any] | None = None
    not_before: float | None = None
    keep_s: float | None = None
    traceparent: str | None = None
    progress: str | None = field(default=None, repr=False)

    @property
    def expires(self) -> float | None:
        """When it may be removed, seconds since 1970; None while it runs, or if it is kept."""
        if self.finished is None or self.keep_s is None:
            return None
        return self.finished + self.keep_s

    @property
    def images(self) -> tuple[StoredImage, ...]:
        """Its pictures; none before it is completed."""
        return self.result.images if self.result else ()

    @property
    def references(self) -> tuple[str, ...]:
        """The SHA-256 of every picture of the character that it was drawn from, the best first."""
        several = self.result.references if self.result else ()
        return several or (self.request.image.removeprefix("sha256:"),)

    @property
    def shown(self) -> tuple[StoredImage, ...]:
        """Those of its pictures that are not discarded."""
        return tuple(image for image in self.images if image.discarded is None)

    @classmethod
    def of(cls, row: Row[Any], attempts: Sequence[Row[Any]] = ()) -> Self:
        """From a row of `predictions` and those of its `attempts`."""
        return cls(
            row.id,
            row.key_name,
            State(row.state),
            GenerateRequest.model_validate_json(row.request),
            row.input,
            row.attempt,
            bool(row.cancel_requested),
            row.created,
            row.started,
            row.finished,
            StoredResult.from_json(row.result) if row.result else None,
            json.loads(row.error) if row.error else None,
            row.note,
            tuple(map(_attempt, attempts)),
            bool(row.may_spend),
            waits_for=json.loads(row.waits_for) if row.waits_for else None,
            not_before=row.not_before,
            keep_s=row.keep_s,
            traceparent=row.traceparent,
            progress=row.progress,
        )


def _besides_images(result: GenerateResult | StoredResult) -> dict[str, Any]:
    """What both forms of a result have in common."""
    shared = (one.name for one in fields(GenerateResult) if one.name != "images")
    return {name: getattr(result, name) for name in shared}


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(
        row.attempt,
        row.owner,
        row.started,
        row.finished,
        Outcome(row.outcome) if row.outcome else None,
        row.client,
        json.loads(row.error) if row.error else None,
    )


def new_id(now: float) -> str:
    """A UUIDv7 in hex: random, and later ones sort behind earlier ones."""
    value = int(now * 1000) << 80 | 7 << 76 | secrets.randbits(12) << 64
    return UUID(int=value | 2 << 62 | secrets.randbits(62)).hex


def first_id(now: float | None) -> str | None:
    """What sorts before every id that is given at a time or later."""
    return None if now is None else f"{max(0, int(now * 1000)):012x}"


def hash_of(request: GenerateRequest) -> str:
    """What makes two requests the same one, the reference's content included.

    It is of what was asked: what is left to the model stays out, whatever draws it.
    """
    body = json.dumps(request.model_dump(mode="json", exclude_none=True), sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()
