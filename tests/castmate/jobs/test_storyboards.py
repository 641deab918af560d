"""Series of pictures: taken whole, drawn scene by scene, and gone on with after whatever befell."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from castmate.clients.base import Progress
from castmate.errors import (
    CastmateError,
    IdempotencyConflict,
    InvalidRequest,
    Overloaded,
    PredictionNotFound,
)
from castmate.images import Reference
from castmate.jobs.ledger import Ledger
from castmate.jobs.predictions import State
from castmate.jobs.retention import GRACE_S, sweep
from castmate.jobs.scenes import Storyboard
from castmate.jobs.storyboards import Storyboards
from castmate.jobs.worker import Worker
from castmate.schema import GenerateRequest, GenerateResult
from castmate.storyboard import Series, StoryboardRequest
from tests.castmate.jobs.conftest import Clock
from tests.doubles import FlatClient

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

SCENES = ["waving", "reading", "asleep"]


def series(**changed: Any) -> Series:
    return StoryboardRequest.parse({"scenes": SCENES, "image": "x", "size": "512*640"} | changed)


class Failing(FlatClient):
    """Cannot draw what a prompt names."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    async def generate(self, request: GenerateRequest, *args: Any, **kw: Any) -> GenerateResult:
        if self.word and self.word in request.prompt:
            raise CastmateError(f"Nobody can draw {self.word}.")
        return await super().generate(request, *args, **kw)


@pytest.fixture
def boards(ledger: Ledger) -> Storyboards:
    return Storyboards(ledger)


async def drawn(
    ledger: Ledger, client: FlatClient, board: Storyboard, **options: Any
) -> Storyboard:
    worker = Worker(ledger, client, **options)
    worker.start()
    try:
        async with asyncio.timeout(20):
            return await Storyboards(ledger).wait(board.id)
    finally:
        await worker.drain()


async def test_every_scene_is_drawn_with_the_words_and_the_seed_that_they_share(
    ledger: Ledger, boards: Storyboards, reference: Reference
) -> None:
    client = FlatClient()
    taken = await boards.submit(series(style_words="ink"), reference)
    assert taken.state is State.CREATED
    done = await drawn(ledger, client, taken)
    assert done.state is State.COMPLETED
    assert [scene.text for scene in done.scenes] == SCENES
    assert {one.prompt for one in client.requests} == {f"{text}, ink" for text in SCENES}
    assert len({one.seed for one in client.requests}) == 1
    assert done.scenes[0].image
    assert done.scenes[0].image.seed == client.requests[0].seed


async def test_a_scene_that_fails_loses_no_other_and_the_same_submit_draws_it_alone(
    ledger: Ledger, boards: Storyboards, reference: Reference
) -> None:
    client = Failing("reading")
    done = await drawn(ledger, client, await boards.submit(series(), reference))
    assert done.state is State.COMPLETED
    assert [scene.number for scene in done.undrawn] == [2]
    assert done.undrawn[0].prediction.error
    assert "Nobody can draw" in done.undrawn[0].prediction.error["message"]
    first = await boards.sheet(done)
    client.word = ""
    again = await boards.submit(series(), reference)
    assert (again.id, again.joined) == (done.id, True)
    done = await drawn(ledger, client, again)
    assert done.undrawn == ()
    assert len(client.requests) == 3  # nothing twice
    assert len({one.seed for one in client.requests}) == 1
    second = await boards.sheet(done)
    assert first
    assert second
    assert first.name != second.name


async def test_a_series_that_is_complete_is_another_one_when_it_is_submitted_again(
    ledger: Ledger, boards: Storyboards, reference: Reference
) -> None:
    done = await drawn(ledger, FlatClient(), await boards.submit(series(), reference))
    again = await boards.submit(series(), reference)
    assert (again.id == done.id, again.joined) == (False, False)


async def test_an_idempotency_key_stands_for_one_series_for_ever(
    ledger: Ledger, boards: Storyboards, reference: Reference
) -> None:
    first = await boards.submit(series(), reference, idempotency_key="story-1")
    done = await drawn(ledger, FlatClient(), first)
    again = await boards.submit(series(), reference, idempotency_key="story-1")
    assert (again.id, again.state) == (done.id, State.COMPLETED)
    with pytest.raises(IdempotencyConflict, match="stands for another request"):
        await boards.submit(series(seed=3), reference, idempotency_key="story-1")


async def test_a_series_is_taken_whole_or_not_at_all(
    ledger: Ledger, boards: Storyboards, reference: Reference
) -> None:
    ledger.limits = ledger.limits.__class__(queue_limit=4)
    await boards.submit(series(), reference)
    with pytest.raises(Overloaded, match="too many for 3 more"):
        await boards.submit(series(seed=1), reference)
    assert len(await ledger.list()) == 3
    with pytest.raises(InvalidRequest, match="at most 2"):
        await boards.submit(series(seed=1), reference, max_unfinished=2)
    with pytest.raises(Overloaded, match="no 3 more"):
        await boards.submit(series(seed=1), reference, max_unfinished=5)


async def test_what_is_cancelled_keeps_what_is_finished(
    ledger: Ledger, boards: Storyboards, reference: Reference
) -> None:
    taken = await boards.submit(series(), reference)
    first = taken.scenes[0].prediction.id
    worker = Worker(ledger, FlatClient(), own=[first])
    worker.start()
    async with asyncio.timeout(20):
        await ledger.wait(first)
    await worker.drain()
    ended = await boards.cancel(taken.id)
    assert ended.state is State.COMPLETED
    assert [scene.number for scene in ended.undrawn] == [2, 3]
    assert await boards.sheet(ended) is not None


async def test_progress_counts_the_steps_of_all_scenes_and_never_goes_back(
    ledger: Ledger, boards: Storyboards, reference: Reference
) -> None:
    taken = await boards.submit(series(num_inference_steps=4), reference)
    reports: list[Progress] = []
    waiting = asyncio.create_task(boards.wait(taken.id, 20, reports.append))
    await asyncio.sleep(0)
    await drawn(ledger, FlatClient(), taken)
    await waiting
    steps = [one.step for one in reports if one.total == 12]
    assert steps == sorted(steps)
    assert steps[-1] == 12


@pytest.mark.parametrize("layout", ["storyboard", "sheet"])
async def test_the_sheet_has_every_picture_and_is_made_once(
    ledger: Ledger, boards: Storyboards, reference: Reference, layout: str
) -> None:
    done = await drawn(ledger, FlatClient(), await boards.submit(series(layout=layout), reference))
    first, again = await boards.sheet(done), await boards.sheet(done)
    assert first
    assert first == again
    with Image.open(io.BytesIO(await ledger.storage.get(first.name))) as sheet:
        assert sheet.size == (first.width, first.height)
        assert sheet.width > 2 * 512


async def test_a_picture_deleted_meanwhile_is_missing_from_the_sheet_and_no_error(
    ledger: Ledger, boards: Storyboards, reference: Reference
) -> None:
    done = await drawn(ledger, FlatClient(), await boards.submit(series(), reference))
    image = done.scenes[0].image
    assert image
    await ledger.storage.delete_picture(image.name)
    assert await boards.sheet(done)


async def test_nobody_sees_the_series_of_another_key(
    boards: Storyboards, reference: Reference
) -> None:
    taken = await boards.submit(series(), reference, key_name="ann")
    with pytest.raises(PredictionNotFound):
        await boards.get(taken.id, "bob")
    assert await boards.list("bob") == []
    assert [one.id for one in await boards.list("ann")] == [taken.id]


async def test_a_swept_series_takes_its_sheet_along(
    ledger: Ledger,
    boards: Storyboards,
    reference: Reference,
    clock: Clock,
    named: Callable[[str], list[str]],
) -> None:
    done = await drawn(ledger, FlatClient(), await boards.submit(series(), reference))
    assert await boards.sheet(done)
    assert len(named("sheets")) == 1
    clock.now += 4 * GRACE_S
    await sweep(ledger)
    assert len(named("sheets")) == 1
    await sweep(ledger, GRACE_S)
    assert named("sheets") == []
    assert await boards.find(done.id) is None


@pytest.fixture
def named(ledger: Ledger) -> Callable[[str], list[str]]:
    """The files of the storage below a folder."""

    def found(prefix: str) -> list[str]:
        folder = ledger.storage.local_path(prefix)
        assert folder is not None
        return sorted(path.name for path in folder.rglob("*") if path.is_file())

    return found
