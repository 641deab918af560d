"""Whom a picture shows: scores in results, and pictures that are chosen by them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.errors import Incapable, InvalidRequest
from castmate.identity import Selection, Stopped, Verdict
from castmate.images import Reference
from castmate.jobs.predictions import StoredResult
from castmate.pipeline.candidates import Drawn, choose, is_enough
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest, GenerateResult

Make = Callable[..., GenerateRequest]
Character = Callable[[str], Reference]
STEPS = 8


def draw(pipeline: Pipeline, request: GenerateRequest, reference: Reference) -> GenerateResult:
    return pipeline.generate(request, reference, lambda done, total: None)


def unjudging(**changes: object) -> Pipeline:
    """toon without its identity graph."""
    bundle = Bundle.open("toon")
    graphs = {name: spec for name, spec in bundle.manifest.graphs.items() if name != "identity"}
    manifest = bundle.manifest.model_copy(update={"graphs": graphs, **changes})
    return Pipeline(Bundle(bundle.path, manifest), OnnxRuntime(bundle))


@pytest.mark.slow
def test_a_picture_of_the_character_is_the_same_and_one_of_nobody_in_particular_is_not(
    toon: Pipeline, make_request: Make, character: Character
) -> None:
    mira = character("mira")
    followed = draw(toon, make_request(num_inference_steps=STEPS), mira)
    free = draw(toon, make_request(num_inference_steps=STEPS, subject_scale=0.0), mira)
    (close,), (far,) = ([image.identity for image in one.images] for one in (followed, free))
    assert close is not None
    assert far is not None
    assert Verdict.of(close) is Verdict.SAME
    assert close > far + 0.2
    assert followed.no_identity == ""
    assert followed.timings_ms["identity"] > 0
    assert followed.selection is None


@pytest.mark.slow
def test_judging_changes_no_pixel_and_a_result_says_why_it_was_not_judged(
    toon: Pipeline, make_request: Make, character: Character
) -> None:
    judged = draw(toon, make_request(), character("pim"))
    for other, why in (
        (
            Pipeline(toon.bundle, OnnxRuntime(toon.bundle), identity=False),
            "CASTMATE_IDENTITY is off",
        ),
        (unjudging(), "Bundle 'toon' has no identity graph"),
    ):
        result = draw(other, make_request(), character("pim"))
        assert why in result.no_identity
        assert result.images[0].identity is None
        assert "identity" not in result.timings_ms
        assert result.images[0].data == judged.images[0].data
        with pytest.raises(Incapable, match="Leave num_candidates and min_identity out"):
            draw(other, make_request(num_candidates=2), character("pim"))


@pytest.mark.slow
def test_the_best_candidates_come_first_and_all_are_told(
    toon: Pipeline, make_request: Make, character: Character
) -> None:
    rusty = character("rusty")
    chosen = draw(toon, make_request(num_candidates=3, num_images=2), rusty)
    every = draw(toon, make_request(num_images=3), rusty)
    scores = {image.seed: image.identity for image in every.images}
    assert chosen.selection is not None
    assert {one.seed: one.identity for one in chosen.selection.candidates} == scores
    best = sorted(every.images, key=lambda image: -(image.identity or 0))[:2]
    assert [image.data for image in chosen.images] == [image.data for image in best]
    assert {one.seed for one in chosen.selection.candidates if one.chosen} == {
        image.seed for image in best
    }
    assert chosen.selection.stopped is Stopped.ALL_DRAWN
    assert chosen.warnings == ()


def test_drawing_ends_when_the_identity_is_reached_or_the_candidates_are_used_up(
    toon: Pipeline, make_request: Make, character: Character
) -> None:
    mira = character("mira")
    at_once = draw(toon, make_request(min_identity=0), mira)
    assert at_once.selection is not None
    assert (len(at_once.selection.candidates), at_once.selection.stopped) == (1, Stopped.REACHED)
    never = draw(toon, make_request(min_identity=1, num_candidates=2, subject_scale=0), mira)
    assert never.selection is not None
    assert (len(never.selection.candidates), never.selection.stopped) == (2, Stopped.NOT_REACHED)
    assert len(never.images) == 1
    (warning,) = never.warnings
    assert "Only 0 of 2 candidates reached min_identity 1" in warning


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({}, 1),
        ({"num_images": 3}, 3),
        ({"num_candidates": 5}, 5),
        ({"num_candidates": 1, "num_images": 3}, 3),
        ({"min_identity": 0.5}, 8),
        ({"min_identity": 0.5, "num_candidates": 2}, 2),
    ],
)
def test_what_a_request_costs_counts_every_candidate(
    make_request: Make, asked: dict[str, float], most: int
) -> None:
    assert make_request(**asked).most_drawn == most


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_candidates", 0), ("num_candidates", 9), ("min_identity", 1.01), ("min_identity", True)],
)
def test_what_is_out_of_range_is_refused_with_the_range(
    make_request: Make, name: str, value: object
) -> None:
    with pytest.raises(InvalidRequest, match=rf"`{name}`.*from"):
        make_request(**{name: value})


def test_a_flagged_picture_never_wins_over_one_that_is_not(make_request: Make) -> None:
    request = make_request(num_candidates=3, min_identity=0.9)
    black = np.zeros((1, 1, 3), np.uint8)
    drawn = [Drawn(7, black, True, None), Drawn(8, black, False, 0.0), Drawn(9, black, True, None)]
    assert not is_enough(request, drawn)
    chosen, selection = choose(request, drawn)
    assert [one.seed for one in chosen] == [8]
    assert selection.stopped is Stopped.NOT_REACHED


def test_of_equally_close_pictures_the_earlier_one_wins(make_request: Make) -> None:
    black = np.zeros((1, 1, 3), np.uint8)
    drawn = [Drawn(7, black, False, 0.5), Drawn(8, black, False, 0.5)]
    assert choose(make_request(num_candidates=2), drawn)[0] == drawn[:1]


@pytest.mark.anyio
async def test_the_ledger_gives_back_scores_and_candidates(
    toon: Pipeline, make_request: Make, character: Character
) -> None:
    result = draw(toon, make_request(num_candidates=2), character("nova"))
    stored = StoredResult.from_json(StoredResult.of(result, ["a.png"]).to_json())

    async def read(name: str) -> bytes:
        return result.images[0].data

    assert await stored.load(read) == result
    assert isinstance(stored.selection, Selection)


@pytest.mark.parametrize(
    ("score", "verdict"), [(1, "same"), (0.7, "same"), (0.69, "drifted"), (0.34, "another")]
)
def test_a_score_has_a_word(score: float, verdict: str) -> None:
    assert Verdict.of(score) == verdict
