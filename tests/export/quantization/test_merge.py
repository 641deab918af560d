"""Layers of one input as one: the same numbers, fewer products."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from export.calibrate import Calibration
from export.families.instantcharacter.graphs import export_graphs
from export.families.instantcharacter.merges import merges
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.unquantized import UNQUANTIZED
from export.quantization.fp8 import FP8, FP8_ATTENTION, Fp8, Fp8Linear
from export.quantization.merge import Group, merge
from export.quantization.quantize import quantize
from tests.export.conftest import make_wide

PAIR = Group("both", ("a", "b"))


def step(network: InstantCharacter) -> Tensor:
    graph = export_graphs(network)["transformer"]()
    with torch.no_grad():
        found: Tensor = graph.module(*graph.inputs.values()) - graph.inputs["latents"]
    return found


def test_a_merged_denoiser_computes_the_same_step() -> None:
    separate, merged = make_wide(), make_wide()
    before = sum(isinstance(m, nn.Linear) for m in merged.denoiser.modules())
    for group in list(merges(merged.denoiser)):
        merge(merged.denoiser, group)
    after = sum(isinstance(m, nn.Linear) for m in merged.denoiser.modules())
    # A double block has two groups of three, a single one a group of four, each a pair of the
    # subject's.
    assert before - after == 2 * 2 + 3 + 2 * 1
    torch.testing.assert_close(step(merged), step(separate), rtol=0, atol=5e-6)


@pytest.mark.parametrize("scheme", [FP8, FP8_ATTENTION])
def test_the_same_calibration_gives_the_same_quantized_step(
    calibration: Calibration, scheme: Fp8
) -> None:
    separate, merged = make_wide(), make_wide()
    quantize(separate.denoiser, calibration.amax, scheme, UNQUANTIZED)
    denoiser = merged.denoiser
    quantize(denoiser, calibration.amax, scheme, UNQUANTIZED, merges(denoiser))
    exact = step(make_wide())
    error = (step(separate) - exact).norm()
    assert (step(merged) - step(separate)).norm() < 0.05 * error, "rounding ties only"


def test_every_output_keeps_its_own_scale_and_its_bytes(calibration: Calibration) -> None:
    separate, merged = make_wide(), make_wide()
    quantize(separate.denoiser, calibration.amax, FP8, UNQUANTIZED)
    quantize(merged.denoiser, calibration.amax, FP8, UNQUANTIZED, merges(merged.denoiser))
    for group in merges(separate.denoiser):
        one = merged.denoiser.get_submodule(f"{group.merged}.linear")
        parts = [separate.denoiser.get_submodule(part) for part in group.parts]
        assert isinstance(one, Fp8Linear)
        for name, axis in (("weight", 1), ("weight_scale", 0), ("bias", 0)):
            expected = torch.cat([getattr(part, name).float() for part in parts], dim=axis)
            assert torch.equal(getattr(one, name).float(), expected)
        scales = {float(part.get_buffer("input_scale")) for part in parts}
        assert scales == {float(one.input_scale)}


def test_layers_of_which_one_is_not_quantized_stay_apart() -> None:
    module = nn.Sequential()
    for name in PAIR.parts:
        module.add_module(name, nn.Linear(4, 4))
    ranges = {name: torch.tensor(1.0) for name in PAIR.parts}
    assert quantize(module, ranges, FP8, (".b",), [PAIR]) == ["a"]
    assert isinstance(module.get_submodule("a"), Fp8Linear)
    assert isinstance(module.get_submodule("b"), nn.Linear)


@pytest.mark.parametrize("bias", [True, False])
def test_merged_layers_give_their_outputs_apart(bias: bool) -> None:
    torch.manual_seed(0)
    module, x = nn.Module(), torch.randn(2, 5, 4)
    module.a, module.b = nn.Linear(4, 3, bias), nn.Linear(4, 7, bias)
    with torch.no_grad():
        separate = PAIR.outputs(module, x)
        assert merge(module, PAIR) == "both.linear"
        together = PAIR.outputs(module, x)
    assert [name for name, _ in module.named_children()] == ["both"]
    for found, expected in zip(together, separate, strict=True):
        torch.testing.assert_close(found, expected)
