"""Plans share a card's memory: what runs is there, what must make room leaves, pixels stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from castmate.engines.bundle import Bundle
from castmate.engines.plan import Flavour
from castmate.engines.residency import SPARE_BYTES, Share
from castmate.engines.tensorrt import TensorRTRuntime
from castmate.errors import BundleMismatch, Unavailable
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from tests.gpu_double import Card, Machine, install, plan_bundle_of

MIB = 2**20
BIG = 800 * MIB
BOTH = pytest.mark.parametrize("flavour", list(Flavour))
Draw = Callable[[Pipeline, str], bytes]


@pytest.fixture
def draw(
    character: Callable[[str], Reference], make_request: Callable[..., GenerateRequest]
) -> Draw:
    def make(pipeline: Pipeline, prompt: str = "waving on the beach", **values: Any) -> bytes:
        request = make_request(prompt=prompt, num_inference_steps=2, **values)
        result = pipeline.generate(request, character("mira"), lambda done, total: None)
        return result.images[0].data

    return make


@pytest.fixture
def small() -> Iterator[Machine]:
    """A card on which two large graphs do not fit together."""
    with install(Card(size=2 * BIG + SPARE_BYTES)) as machine:
        yield machine


def crowded(folder: Path, flavour: Flavour = Flavour.TENSORRT_RTX, **graphs: Any) -> Bundle:
    large = {"text_encoder_2": {"weights": BIG}, "transformer_tail": {"weights": BIG}}
    return plan_bundle_of(
        Bundle.open("toon"), folder, flavour, weights=8 * MIB, **{**large, **graphs}
    )


def runs(machine: Machine, *words: str) -> list[str]:
    return [call for call in machine.calls if call.split()[0] in words]


@BOTH
def test_plans_draw_the_picture_that_their_graphs_draw(
    tmp_path: Path, flavour: Flavour, toon: Pipeline, draw: Draw
) -> None:
    with install(Card()) as machine:
        bundle = plan_bundle_of(Bundle.open("toon"), tmp_path, flavour)
        pipeline = Pipeline(bundle, TensorRTRuntime(bundle))
        assert draw(pipeline, "waving on the beach") == draw(toon, "waving on the beach")
        assert not runs(machine, "unload", "defer")
        del pipeline


@pytest.mark.slow
@BOTH
def test_what_does_not_fit_together_takes_turns_and_draws_the_same_picture(
    tmp_path: Path, flavour: Flavour, small: Machine, toon: Pipeline, draw: Draw
) -> None:
    bundle = crowded(tmp_path, flavour)
    runtime = TensorRTRuntime(bundle)
    assert set(runtime.residency.parked) == {"text_encoder_2", "transformer_tail"}
    pipeline = Pipeline(bundle, runtime)
    for prompt in ("waving on the beach", "running in a desert"):
        assert draw(pipeline, prompt) == draw(toon, prompt)
    brought = [call for call in runs(small, "load") if call.split()[1] in runtime.residency.parked]
    assert brought == 2 * ["load text_encoder_2", "load transformer_tail"]
    assert small.cards[0].most_taken < small.cards[0].size


@BOTH
def test_a_known_prompt_and_character_load_nothing(
    tmp_path: Path, flavour: Flavour, small: Machine, draw: Draw
) -> None:
    bundle = crowded(tmp_path, flavour)
    pipeline = Pipeline(bundle, TensorRTRuntime(bundle))
    first = draw(pipeline, "waving on the beach")
    small.calls.clear()
    assert draw(pipeline, "waving on the beach") == first
    assert not runs(small, "load", "defer", "unload")
    assert {call.split()[1] for call in runs(small, "run")} == {
        "transformer_head",
        "transformer_tail",
        "transformer_finish",
        "vae_decoder",
        "safety_checker",
        "matte",
        "identity",
    }


def test_graphs_that_stay_are_loaded_once_and_whole_and_only_the_others_are_deferred(
    tmp_path: Path, small: Machine
) -> None:
    bundle = crowded(tmp_path)
    runtime = TensorRTRuntime(bundle)
    pipeline = Pipeline(bundle, runtime)
    loaded = {call.split()[1] for call in runs(small, "load")}
    assert loaded == set(runtime.residency.resident)
    assert {call.split()[1] for call in runs(small, "defer")} == set(runtime.residency.parked)
    del pipeline


def test_one_block_holds_the_activations_of_all_and_is_as_large_as_the_largest_that_runs(
    tmp_path: Path, draw: Draw
) -> None:
    with install(Card()) as machine:
        large = {"activations": [500 * MIB]}
        bundle = plan_bundle_of(Bundle.open("toon"), tmp_path, weights=MIB, vae_decoder=large)
        pipeline = Pipeline(bundle, TensorRTRuntime(bundle))
        draw(pipeline, "waving on the beach")
        blocks = [b.size for b in machine.cards[0].live if b.pooled and b.size >= 10 * MIB]
        assert blocks == [500 * MIB]
        del pipeline


def test_pictures_of_one_prompt_keep_their_block(tmp_path: Path, draw: Draw) -> None:
    with install(Card()) as machine:
        large = {"activations": [500 * MIB]}
        bundle = plan_bundle_of(Bundle.open("toon"), tmp_path, weights=MIB, vae_decoder=large)
        pipeline = Pipeline(bundle, TensorRTRuntime(bundle))
        draw(pipeline, "waving on the beach")
        [block] = [b for b in machine.cards[0].live if b.size == 500 * MIB]
        draw(pipeline, "waving on the beach")
        assert not block.freed
        del pipeline


def test_a_cap_is_kept_whatever_is_free(tmp_path: Path, draw: Draw) -> None:
    with install(Card(size=64 * BIG)) as machine:
        bundle = crowded(tmp_path)
        cap = 2 * BIG + SPARE_BYTES
        runtime = TensorRTRuntime(bundle, share=Share(memory=cap))
        assert set(runtime.residency.parked) == {"text_encoder_2", "transformer_tail"}
        pipeline = Pipeline(bundle, runtime)
        draw(pipeline, "waving on the beach")
        assert machine.cards[0].most_taken < cap
        del runtime, pipeline


def test_a_bundle_that_cannot_fit_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with install(Card(size=BIG)) as machine:
        with pytest.raises(BundleMismatch, match=r"text_encoder_2 cannot run.*--max-side.*fp8"):
            TensorRTRuntime(crowded(tmp_path, text_encoder_2={"weights": 2 * BIG}))
        assert not runs(machine, "load", "defer")


def test_weights_that_are_streamed_leave_room_for_activations_and_the_streaming_itself(
    tmp_path: Path, draw: Draw, toon: Pipeline
) -> None:
    with install(Card(size=BIG + SPARE_BYTES)) as machine:
        streamed = {"weights": 2 * BIG, "streamable": 2 * BIG - MIB, "scratch": 20 * MIB}
        bundle = plan_bundle_of(
            Bundle.open("toon"), tmp_path, weights=4 * MIB, transformer_tail=streamed
        )
        runtime = TensorRTRuntime(bundle)
        assert runtime.residency.streamed == ("transformer_tail",)
        pipeline = Pipeline(bundle, runtime)
        assert draw(pipeline, "waving on the beach") == draw(toon, "waving on the beach")
        assert machine.cards[0].most_taken < BIG + SPARE_BYTES
        del runtime, pipeline


def test_a_budget_that_the_library_does_not_take_is_noticed(tmp_path: Path, draw: Draw) -> None:
    with install(Card(size=BIG + SPARE_BYTES)):
        streamed = {"weights": 2 * BIG, "streamable": 2 * BIG - MIB, "refuses_budget": True}
        bundle = plan_bundle_of(
            Bundle.open("toon"), tmp_path, weights=4 * MIB, transformer_tail=streamed
        )
        with pytest.raises(BundleMismatch, match="cannot stream the weights"):
            draw(Pipeline(bundle, TensorRTRuntime(bundle)), "waving on the beach")


@BOTH
def test_a_card_that_others_fill_meanwhile_says_that_memory_ran_out(
    tmp_path: Path, flavour: Flavour, draw: Draw
) -> None:
    with install(Card()) as machine:
        bundle = plan_bundle_of(Bundle.open("toon"), tmp_path, flavour)
        runtime = TensorRTRuntime(bundle)
        card = machine.cards[0]
        other = card.allocate(card.size - card.taken - 50 * MIB, "another program", pooled=False)
        with pytest.raises(Unavailable, match=r"GPU 0 has too little memory left.*GPU_MEMORY"):
            draw(Pipeline(bundle, runtime), "waving on the beach")
        card.free(other.address)
        assert draw(Pipeline(bundle, runtime), "waving on the beach")
        del runtime


@pytest.mark.parametrize(
    ("trouble", "error", "says"),
    [
        ({"refused": True}, BundleMismatch, r"cannot load .*transformer_tail\.plan: .*magic tag"),
        ({"no_context": True}, Unavailable, r"too little memory left to make a context"),
    ],
)
def test_an_engine_or_context_that_does_not_come_says_why(
    tmp_path: Path, trouble: dict[str, Any], error: type[Exception], says: str
) -> None:
    with install(Card()):
        bundle = plan_bundle_of(Bundle.open("toon"), tmp_path, transformer_tail=trouble)
        with pytest.raises(error, match=says):
            Pipeline(bundle, TensorRTRuntime(bundle))


@pytest.mark.slow
def test_two_pipelines_of_one_runtime_share_its_plan(
    tmp_path: Path, small: Machine, draw: Draw
) -> None:
    runtime = TensorRTRuntime(crowded(tmp_path))
    both = [Pipeline(runtime.bundle, runtime) for _ in range(2)]
    pictures = [draw(pipeline, "waving on the beach") for pipeline in (*both, *both)]
    assert len(set(pictures)) == 1
    assert small.cards[0].most_taken < small.cards[0].size
    del runtime, both
