"""Chooses among the pictures that are drawn for a request; see `castmate.identity`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from castmate.identity import Candidate, Selection, Stopped
from castmate.schema import GenerateRequest


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture that is not encoded yet.

    Attributes:
        seed: The seed of its noise.
        picture: `[H, W, 3]`, black if it was flagged.
        flagged: Whether the safety checker flagged it.
        identity: How close its character is to the reference's, if that was judged.
    """

    seed: int
    picture: NDArray[np.uint8]
    flagged: bool
    identity: float | None


def is_enough(request: GenerateRequest, drawn: Sequence[Drawn]) -> bool:
    """Whether enough pictures are as close as the request wants."""
    least = request.min_identity
    return least is not None and sum(_reaches(one, least) for one in drawn) >= request.num_images


def choose(request: GenerateRequest, drawn: Sequence[Drawn]) -> tuple[list[Drawn], Selection]:
    """The closest pictures, the best first, and the report on all of them.

    Flagged pictures come after all others; of equals, the earlier wins.
    """
    ranked = sorted(drawn, key=lambda one: (one.flagged, -(one.identity or 0.0)))
    chosen = ranked[: request.num_images]
    candidates = [
        Candidate(seed=one.seed, identity=one.identity, has_nsfw=one.flagged, chosen=one in chosen)
        for one in drawn
    ]
    if request.min_identity is None:
        stopped = Stopped.ALL_DRAWN
    else:
        stopped = Stopped.REACHED if is_enough(request, drawn) else Stopped.NOT_REACHED
    return chosen, Selection(candidates=tuple(candidates), stopped=stopped)


def warning(request: GenerateRequest, selection: Selection) -> tuple[str, ...]:
    """A warning if the caller does not get what the request asks for."""
    if selection.stopped is not Stopped.NOT_REACHED:
        return ()
    reached = sum(
        (one.identity or 0.0) >= (request.min_identity or 0.0) and not one.has_nsfw
        for one in selection.candidates
    )
    return (
        f"Only {reached} of {len(selection.candidates)} candidates reached min_identity "
        f"{request.min_identity:g}; the best {request.num_images} are here. Raise num_candidates "
        "or subject_scale, or ask for a scene that shows the character whole.",
    )


def _reaches(one: Drawn, least: float) -> bool:
    return not one.flagged and (one.identity or 0.0) >= least
