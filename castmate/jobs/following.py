"""A prediction or a series as it goes on, for a door that shows its caller every step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack

from castmate.clients.base import Progress
from castmate.jobs import notify
from castmate.jobs.ledger import Ledger
from castmate.jobs.predictions import Prediction
from castmate.jobs.progress import Reader
from castmate.jobs.scenes import Counting, Storyboard
from castmate.jobs.storyboards import Storyboards


async def follow(
    ledger: Ledger, prediction_id: str, key_name: str | None = None, *, until: asyncio.Event
) -> AsyncGenerator[Prediction | Progress]:
    """Every look at a prediction, and its progress in between; the last look is at its end.

    Progress begins with what is known already. It comes with every step where the prediction is
    made in this process, and once a second from others; who is slow to take it gets the latest.

    Args:
        ledger: Where it is.
        prediction_id: Which.
        key_name: Who asks; None may see everything.
        until: Ends it early, once set.

    Raises:
        PredictionNotFound: There is none of this id and key, or no longer.
        Unavailable: The ledger cannot be reached.
    """
    hub, moved, reader = ledger.database.hub, asyncio.Event(), Reader(ledger.storage)
    latest: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        latest[:] = [progress]
        moved.set()

    with (
        hub.listening(notify.done(prediction_id), notify.progress(prediction_id)) as heard,
        hub.watching(prediction_id, on_progress),
    ):
        heard.set()
        while not until.is_set():
            if heard.is_set():
                heard.clear()
                prediction = await ledger.get(prediction_id, key_name)
                yield prediction
                if prediction.state.final:
                    return
                text = None if hub.makes(prediction_id) else prediction.progress
                if (progress := await reader.read(text)) is not None:
                    yield progress
            moved.clear()
            if latest:
                yield latest.pop()
            else:
                await _any(heard, moved, until)


async def follow_series(
    storyboards: Storyboards,
    hub: notify.Hub,
    storyboard_id: str,
    key_name: str | None = None,
    *,
    until: asyncio.Event,
) -> AsyncGenerator[Storyboard | Progress]:
    """The same for a series: a look whenever a scene ends, and the steps of all in between.

    Args:
        storyboards: Where it is.
        hub: Told of what happens there.
        storyboard_id: Which.
        key_name: Who asks; None may see everything.
        until: Ends it early, once set.

    Raises:
        PredictionNotFound: There is none of this id and key, or no longer.
        Unavailable: The ledger cannot be reached.
    """
    moved = asyncio.Event()
    latest: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        latest[:] = [progress]
        moved.set()

    while not until.is_set():
        found = await storyboards.get(storyboard_id, key_name)
        yield found
        if found.state.final:
            return
        counting = Counting(found, on_progress)
        with ExitStack() as stack:
            open_ = [one for one in found.scenes if not one.prediction.state.final]
            ends = []
            for scene in open_:
                name = scene.prediction.id
                ends.append(stack.enter_context(hub.listening(notify.done(name))))
                stack.enter_context(hub.watching(name, counting.of(scene)))
            seen = await storyboards.get(storyboard_id, key_name)  # what ended before we listened
            while not until.is_set() and seen.state_of_scenes == found.state_of_scenes:
                moved.clear()
                if latest:
                    yield latest.pop()
                    continue
                await _any(moved, until, *ends)
                if any(end.is_set() for end in ends):
                    break


async def _any(*events: asyncio.Event) -> None:
    """Wait for the first of several events."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
