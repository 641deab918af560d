"""The torch baseline: exact optimisations change no picture, FP8 layers round and no more."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from benchmarks.full_size import LADDER, random_inputs, random_network
from benchmarks.torch_contenders import EXACT
from benchmarks.torch_loop import ScaledLinear, Switches, TorchLoop, use_fp8
from demo_model.config import TOON
from export.families.instantcharacter.network import InstantCharacter

STEPS = 4


@pytest.fixture(scope="module")
def network() -> InstantCharacter:
    return random_network(TOON, torch.device("cpu"), torch.float32)


def picture(network: InstantCharacter, switches: Switches) -> torch.Tensor:
    return TorchLoop(network, switches).draw(random_inputs(TOON, 512, STEPS)).picture.float()


def test_random_weights_are_nowhere_zero(network: InstantCharacter) -> None:
    for name, weight in network.named_parameters():
        assert (weight == 0).float().mean() < 0.01, name
        assert weight.isfinite().all(), name


@pytest.mark.slow
def test_hoisting_and_batching_change_nothing_but_rounding(network: InstantCharacter) -> None:
    published = picture(network, Switches())
    assert published.shape == (512, 512, 3)
    assert published.std() > 1
    for switches in (Switches(hoist=True), Switches(hoist=True, batch=True), EXACT):
        assert (picture(network, switches) - published).abs().mean() < 0.05


@pytest.mark.slow
def test_a_cached_loop_computes_the_share_that_it_was_told(network: InstantCharacter) -> None:
    loop = TorchLoop(network, replace(EXACT, share=0.5))
    timed = loop.draw(random_inputs(TOON, 512, STEPS))
    assert timed.computed_steps == 3  # the first, and every second
    assert len(timed.steps_ms) == STEPS
    assert list(timed.stages_ms) == ["text", "subject", "denoise", "decode"]


@pytest.mark.slow
def test_a_threshold_of_almost_nothing_computes_every_step_and_the_same_picture(
    network: InstantCharacter,
) -> None:
    exact = TorchLoop(network, EXACT)
    parts = TorchLoop(network, replace(EXACT, threshold=1e-9))
    inputs = random_inputs(TOON, 512, STEPS)
    one, other = exact.draw(inputs), parts.draw(inputs)
    assert one.computed_steps == other.computed_steps == STEPS
    assert (one.picture.float() - other.picture.float()).abs().mean() < 0.05


def test_an_fp8_layer_rounds_its_weights_and_inputs_and_keeps_shape_and_dtype() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 32)
    x = torch.randn(2, 5, 64)
    x[0, 0] *= 1000  # one row's outlier must not cost the others anything
    with torch.no_grad():
        exact, found = layer(x), ScaledLinear(layer)(x)
    assert (found.shape, found.dtype) == (exact.shape, exact.dtype)
    error = (found - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert 1e-4 < error.max() < 0.1


def test_fp8_covers_what_export_quantizes() -> None:
    network = random_network(TOON, torch.device("cpu"), torch.float32)
    denoiser = network.denoiser
    assert use_fp8(denoiser) == sum(isinstance(m, ScaledLinear) for m in denoiser.modules()) > 50
    assert isinstance(network.transformer.x_embedder, torch.nn.Linear)


def test_each_rung_of_the_ladder_switches_one_thing_more() -> None:
    rungs = [vars(rung.switches) for rung in list(LADDER.values())[:6]]
    for before, after in itertools.pairwise(rungs):
        assert sum(before[name] != after[name] for name in before) == 1
