"""A series of pictures as the ledger has it: its scenes, their pictures, and how far it all is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, select

from castmate.clients.base import Progress, ProgressCallback
from castmate.jobs.database import Transaction
from castmate.jobs.predictions import Prediction, State, StoredImage
from castmate.jobs.tables import predictions, scenes
from castmate.storyboard import Series, StoryboardRequest

_UNDRAWN: Final = (State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class Scene:
    """One picture of a series.

    Attributes:
        number: From 1; those of a series whose pictures were removed are missing.
        text: What was asked for, which is its caption.
        prediction: What draws it.
    """

    number: int
    text: str
    prediction: Prediction

    @property
    def image(self) -> StoredImage | None:
        """Its picture, once it is drawn and as long as it is not discarded."""
        return next(iter(self.prediction.shown), None)


@dataclass(frozen=True)
class Storyboard:
    """One submitted series.

    Attributes:
        id: 32 hex digits that sort by time, like a prediction's.
        key_name: Whose it is.
        request: What was asked; its `image` names the stored reference.
        created: Seconds since 1970.
        scenes: In order.
        joined: Whether an earlier submit took it; only what `Storyboards.submit` returns says so.
    """

    id: str
    key_name: str
    request: Series = field(repr=False)
    created: float
    scenes: tuple[Scene, ...]
    joined: bool = False

    @property
    def state(self) -> State:
        """Where the series is: completed if anything was drawn and nothing is left to draw."""
        states = [scene.prediction.state for scene in self.scenes]
        if all(state is State.CREATED for state in states):
            return State.CREATED
        if not all(state.final for state in states):
            return State.PROCESSING
        if State.COMPLETED in states:
            return State.COMPLETED
        return State.FAILED if State.FAILED in states else State.CANCELLED

    @property
    def state_of_scenes(self) -> tuple[tuple[str, State], ...]:
        """What draws each scene, and where that is: what changes when a scene ends."""
        return tuple((one.prediction.id, one.prediction.state) for one in self.scenes)

    @property
    def undrawn(self) -> tuple[Scene, ...]:
        """The scenes that ended without a picture; the same submit again draws them."""
        return tuple(scene for scene in self.scenes if scene.prediction.state in _UNDRAWN)

    @property
    def error(self) -> Mapping[str, Any] | None:
        """Why the first scene was not drawn, where none was."""
        failed = self.state in _UNDRAWN
        return next((scene.prediction.error for scene in self.undrawn), None) if failed else None

    @property
    def cost_usd(self) -> float:
        """What was paid for its pictures."""
        results = (scene.prediction.result for scene in self.scenes)
        return sum(result.cost_usd for result in results if result)


class Counting:
    """Adds up the steps of the scenes of a series."""

    def __init__(self, found: Storyboard, on_progress: ProgressCallback | None) -> None:
        """Know what is drawn.

        Args:
            found: The series.
            on_progress: Gets the sum; None is nobody.
        """
        self._on_progress = on_progress
        self._done = {one.number: 0.0 for one in found.scenes}
        self._done |= {one.number: 1.0 for one in found.scenes if one.prediction.state.final}
        self._steps = 0

    def of(self, scene: Scene) -> ProgressCallback | None:
        """What the prediction of a scene reports to."""
        if self._on_progress is None:
            return None
        report = self._on_progress

        def on_progress(progress: Progress) -> None:
            if progress.total:
                self._steps = progress.total
                self._done[scene.number] = progress.step / progress.total
            done, total = sum(self._done.values()), len(self._done)
            steps = max(1, self._steps)
            report(Progress(round(done * steps), total * steps, progress.waits_for))

        return on_progress


def storyboard_of(tx: Transaction, row: Row[Any]) -> Storyboard:
    """From a row of `storyboards`; the scenes are read here."""
    request = StoryboardRequest.model_validate_json(row.request)
    query = (
        select(predictions, scenes.c.number)
        .join(scenes, scenes.c.prediction_id == predictions.c.id)
        .where(scenes.c.storyboard_id == row.id)
        .order_by(scenes.c.number)
    )
    found = tuple(
        Scene(one.number, request.scenes[one.number - 1], Prediction.of(one))
        for one in tx.connection.execute(query)
    )
    return Storyboard(row.id, row.key_name, request, row.created, found)
