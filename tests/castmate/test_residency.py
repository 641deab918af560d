"""Which graphs stay on the device is decided from bytes alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from castmate.engines.family import family_names, family_of
from castmate.engines.residency import (
    SPARE_BYTES,
    Footprint,
    Residency,
    Runs,
    Stage,
    plan_residency,
)
from castmate.errors import BundleMismatch

STAGES = (
    Stage("text", Runs.PROMPT, ("clip", "t5")),
    Stage("subject", Runs.REFERENCE, ("eye",)),
    Stage("denoise", Runs.STEP, ("whole", "head", "tail")),
    Stage("decode", Runs.PICTURE, ("decoder",)),
)
GB = 10**9


def plan(room: int, graphs: Mapping[str, Footprint] | None = None, caches: int = 0) -> Residency:
    usual = {
        "clip": Footprint(1 * GB, GB // 10),
        "t5": Footprint(10 * GB, GB // 10),
        "eye": Footprint(3 * GB, GB // 10),
        "whole": Footprint(10 * GB, 1 * GB),
        "decoder": Footprint(GB // 10, 3 * GB),
    }
    return plan_residency(STAGES, graphs or usual, room + SPARE_BYTES, caches)


def test_with_room_for_all_everything_stays() -> None:
    found = plan(28 * GB)
    assert found.parked == ()
    assert found.peak(found.stages[-1]) == 24_100_000_000 + 3 * GB
    assert [found.loads(runs) for runs in Runs] == [0, 0, 0, 0]


def test_with_less_what_runs_least_often_leaves_first() -> None:
    assert plan(25 * GB).parked == ("eye",)
    assert set(plan(15 * GB).resident) == {"clip", "decoder"}


def test_a_picture_of_a_known_prompt_and_character_loads_nothing_where_that_is_possible() -> None:
    found = plan(15 * GB)
    assert found.loads(Runs.PICTURE) == 0
    assert found.loads(Runs.PROMPT) == 20 * GB
    assert found.loads(Runs.REFERENCE) == 3 * GB


def test_whatever_the_room_no_stage_takes_more() -> None:
    for room in range(11 * GB + 1, 30 * GB, GB // 2):
        found = plan(room, caches=GB // 2) if room > 12 * GB else plan(room)
        assert max(map(found.peak, found.stages)) <= room
        assert min(map(found.spare, found.footprints)) >= 0


def test_the_block_of_activations_is_as_large_as_the_largest_graph_of_its_stage() -> None:
    found = plan(28 * GB)
    assert found.workspace("whole") == 1 * GB
    assert found.workspace("clip") == found.workspace("t5") == GB // 10


def test_what_every_step_runs_is_there_together() -> None:
    parts = {"head": Footprint(4 * GB, GB), "tail": Footprint(6 * GB, GB)}
    found = plan(12 * GB, {**parts, "decoder": Footprint(3 * GB, GB)})
    assert "tail" in found.beside["head"]
    assert "head" in found.beside["tail"]
    with pytest.raises(BundleMismatch, match=r"head and tail cannot run.*10\.0 GB of weights"):
        plan(10 * GB, parts)


def test_where_a_picture_does_not_keep_what_it_needs_that_is_said() -> None:
    graphs = {"whole": Footprint(10 * GB, 1 * GB), "decoder": Footprint(GB, 10 * GB)}
    found = plan(11 * GB, graphs)
    assert found.loads(Runs.PICTURE) == 11 * GB
    assert "every picture loads 11.0 GB again" in found.summary()


def test_too_little_memory_says_what_takes_less() -> None:
    with pytest.raises(BundleMismatch) as refused:
        plan(10 * GB)
    for part in ("t5 cannot run", "10.0 GB of weights", "--max-side", "--quantization fp8",
                 "--weight-streaming", "CASTMATE_GPU_MEMORY"):  # fmt: skip
        assert part in str(refused.value)


def test_weights_that_may_be_streamed_stay_as_far_as_there_is_room() -> None:
    found = plan(6 * GB, {"whole": Footprint(10 * GB, 1 * GB, streams=True)})
    assert found.streamed == ("whole",)
    assert found.weights["whole"] == 5 * GB
    assert found.peak(found.stages[0]) == 6 * GB
    with pytest.raises(BundleMismatch):
        plan(GB // 2, {"whole": Footprint(10 * GB, 1 * GB, streams=True)})


def test_the_plan_is_said_in_one_line() -> None:
    found = plan(15 * GB).summary()
    assert "\n" not in found
    assert "resident: clip, decoder" in found
    assert "parked when not needed: t5, eye, whole" in found


@pytest.mark.parametrize("family", family_names())
def test_every_graph_of_a_family_is_in_a_stage_and_once_in_each(family: str) -> None:
    found = family_of(family)
    staged = [name for stage in found.stages for name in stage.graphs]
    assert len({(stage.name, name) for stage in found.stages for name in stage.graphs}) == len(
        staged
    )
    assert set(found.table.graphs) <= set(staged)
