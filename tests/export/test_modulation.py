"""Modulations of all steps in one batch: diffusers' own, and in no step's graph."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor

from castmate.engines.bundle import Bundle
from castmate.families.instantcharacter.graphs import PARTS, WHOLE
from export.families.instantcharacter.modulation import LAYERS, ModulationGraph, sections
from export.families.instantcharacter.network import InstantCharacter
from export.quantization.quantize import is_within
from export.to_onnx import NARROW, TRANSPOSED
from tests.export.conftest import make_wide

TIMESTEPS = torch.tensor([1000.0, 740.25, 12.5])
GUIDANCE = torch.tensor([3.5])


def pooled(network: InstantCharacter, passes: int) -> Tensor:
    torch.manual_seed(4)
    return torch.randn(passes, network.config.transformer["pooled_projection_dim"])


def every(network: InstantCharacter, prompts: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = ModulationGraph(network.modulation)(prompts, GUIDANCE, TIMESTEPS)
    return found


def test_each_section_is_to_the_bit_what_diffusers_norm_makes_of_the_embedding(
    network: InstantCharacter,
) -> None:
    model, prompts = network.transformer, pooled(network, 3)
    with torch.no_grad():
        rows = network.modulation(prompts, GUIDANCE.expand(3), TIMESTEPS)
        temb = model.time_text_embed(TIMESTEPS, GUIDANCE.expand(3) * 1000, prompts)
        found = sections(model, rows)
        block, single = model.transformer_blocks[0], model.single_transformer_blocks[-1]
        expected = [
            block.norm1.linear(block.norm1.silu(temb)),
            block.norm1_context.linear(block.norm1_context.silu(temb)),
            single.norm.linear(single.norm.silu(temb)),
            model.norm_out.linear(model.norm_out.silu(temb)),
        ]
    of_image, of_text = found.double[0].chunk(2, dim=-1)
    for values, wanted in zip(
        (of_image, of_text, found.single[-1], found.out), expected, strict=True
    ):
        assert torch.equal(values[:, 0], wanted)


def test_a_batch_of_all_steps_and_passes_equals_each_one_alone(network: InstantCharacter) -> None:
    prompts = pooled(network, 2)
    found = every(network, prompts)
    assert found.shape[:2] == (3, 2)
    for step, timestep in enumerate(TIMESTEPS):
        for number, prompt in enumerate(prompts):
            with torch.no_grad():
                alone = network.modulation(prompt[None], GUIDANCE, timestep[None])
            torch.testing.assert_close(found[step, number], alone[0], rtol=0, atol=1e-6)
    assert (found[0] - found[1]).abs().max() > 1e-3, "steps differ"
    assert (found[:, 0] - found[:, 1]).abs().max() > 1e-3, "prompts differ"


def test_timesteps_that_bf16_cannot_tell_apart_stay_apart() -> None:
    network = make_wide(torch.bfloat16)
    near = torch.tensor([998.5, 1000.5])
    assert near.bfloat16().unique().numel() == 1
    prompt = pooled(network, 1).bfloat16()
    with torch.no_grad():
        first, second = ModulationGraph(network.modulation)(prompt, GUIDANCE, near)
    assert not torch.equal(first, second)


@pytest.mark.slow
def test_their_weights_are_in_their_graph_and_in_no_step(
    bundle_folder: Path, cached_bundle: Bundle
) -> None:
    whole = Bundle.open(bundle_folder)
    for bundle, steps in ((whole, (WHOLE,)), (cached_bundle, PARTS)):
        for graph in steps:
            assert [name for name in weights(bundle, graph) if is_within(name, LAYERS)] == []
    made = [name.removeprefix("modulation.") for name in weights(whole, "modulation")]
    assert sum(name.endswith(".linear.weight") for name in made) == 2 + 2 + 1
    assert {name for name in made if not is_within(f".{name}", LAYERS)} == set()


def weights(bundle: Bundle, graph: str) -> list[str]:
    path = bundle.file(bundle.manifest.graphs[graph].files[0])
    names = (weight.name for weight in onnx.load(path).graph.initializer)
    stored = (name.removesuffix(NARROW).removesuffix(TRANSPOSED) for name in names)
    return [name for name in stored if name.endswith((".weight", ".bias"))]
