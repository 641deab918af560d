"""How close a picture's character is to the reference's, in words, and how pictures are chosen.

Scores are calibrated for each bundle: 1 is another render of the same character and 0 is another
character, see `docs/identity.md`. `castmate.pipeline.identity` computes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

MAX_CANDIDATES: Final = 8
SAME_FROM, DRIFTED_FROM = 0.7, 0.35


class Verdict(StrEnum):
    """A score in a word."""

    SAME = "same"
    DRIFTED = "drifted"
    ANOTHER = "another"

    @classmethod
    def of(cls, score: float) -> Self:
        """The word for a score."""
        if score >= SAME_FROM:
            return cls("same")
        return cls("drifted" if score >= DRIFTED_FROM else "another")


def most_drawn(num_images: int, num_candidates: int | None, min_identity: float | None) -> int:
    """The most pictures that may be drawn for a request with these parameters."""
    bound = num_candidates or (MAX_CANDIDATES if min_identity is not None else 1)
    return max(num_images, bound)


def judged(score: float | None) -> dict[str, Any] | None:
    """A score with its word, as every door shows it."""
    return None if score is None else {"score": score, "verdict": Verdict.of(score).value}


class Stopped(StrEnum):
    """Why no further candidate was drawn."""

    ALL_DRAWN = "all_drawn"
    REACHED = "min_identity_reached"
    NOT_REACHED = "min_identity_not_reached"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One picture that was drawn.

    Attributes:
        seed: The seed that makes it again with `num_images` 1.
        identity: Its score; None if it was flagged.
        has_nsfw: The safety checker flagged it.
        chosen: It is among the pictures of the result.
    """

    seed: int
    identity: float | None
    has_nsfw: bool
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which pictures were drawn for a request, and which of them were chosen.

    Attributes:
        candidates: All of them, in the order in which they were drawn.
        stopped: Why no more were drawn.
    """

    candidates: tuple[Candidate, ...]
    stopped: Stopped

    @classmethod
    def parse(cls, values: Mapping[str, Any] | None) -> Self | None:
        """Restore a selection, or None, from `asdict`."""
        if values is None:
            return None
        candidates = tuple(Candidate(**one) for one in values["candidates"])
        return cls(candidates=candidates, stopped=Stopped(values["stopped"]))
