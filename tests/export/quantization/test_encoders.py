"""FP8 encoders of the demo model on prompts and characters that were not calibrated."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from PIL import Image
from torch import Tensor

from castmate.engines.bundle import Bundle
from castmate.families.instantcharacter.subject import reference_crops
from demo_model.checkpoint import load_shipped
from export.calibrate import calibrate
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.unquantized import ENCODERS, UNQUANTIZED
from export.quantization.fp8 import FP8, Fp8Linear
from export.quantization.quantize import quantize
from export.samples import Prompts, Sample, samples

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SHIPPED = Bundle.open("toon")
RELATIVE_L2 = 1e-1
FEATURES_RELATIVE_L2 = 2e-1
"""Of the subject's features, the largest of which are eighty times their median."""
CALIBRATED = 3
NEW = [*samples(1, 512, first_seed=3), *samples(1, 512, first_seed=7)]
"""The fourth character and two prompts; calibration sees the first three of each."""
FEATURES = "everything of a reference"
Part = Callable[[InstantCharacter, Sample, Prompts], Tensor]


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    return Prompts.of(SHIPPED)


@pytest.fixture(scope="module")
def exact() -> InstantCharacter:
    return load_shipped(SHIPPED)


@pytest.fixture(scope="module")
def quantized(exact: InstantCharacter, prompts: Prompts) -> InstantCharacter:
    recorded = calibrate(exact, prompts, samples(CALIBRATED, 512), steps=1)
    made = copy.deepcopy(exact)
    quantize(made, recorded.amax, FP8, UNQUANTIZED)
    return made


def crops(network: InstantCharacter, sample: Sample) -> Tensor:
    image = Image.open(sample.reference).convert("RGB")
    return torch.from_numpy(reference_crops(image, network.config.projector.crop_px))


PARTS: dict[str, Part] = {
    "T5": lambda network, sample, prompts: network.prompt_embeds(
        prompts.ids(sample.prompt)["tokenizer_2"]
    ),
    "SigLIP": lambda network, sample, prompts: (
        network.crop_encoders[0](crops(network, sample)).low_res_deep
    ),
    "DINOv2": lambda network, sample, prompts: (
        network.crop_encoders[1](crops(network, sample)).low_res_deep
    ),
    FEATURES: lambda network, sample, prompts: network.subject_features(crops(network, sample)),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("sample", NEW, ids=lambda sample: f"seed {sample.seed}")
def test_what_an_encoder_sees_stays_within_the_scheme_s_limits(
    part: str,
    sample: Sample,
    exact: InstantCharacter,
    quantized: InstantCharacter,
    prompts: Prompts,
) -> None:
    with torch.no_grad():
        found, expected = (PARTS[part](one, sample, prompts) for one in (quantized, exact))
    limit = FEATURES_RELATIVE_L2 if part == FEATURES else RELATIVE_L2
    assert 1e-4 < (found - expected).norm() / expected.norm() < limit


def test_every_layer_of_the_encoders_is_quantized_but_those_that_are_named(
    quantized: InstantCharacter,
) -> None:
    for part in ENCODERS:
        module = quantized.get_submodule(part.removeprefix("."))
        linear = {n for n, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)}
        narrow = [layer for layer in module.modules() if isinstance(layer, Fp8Linear)]
        assert narrow
        assert all(name.endswith(".wo") for name in linear), part
    for part in ("text_encoder", "subject_resampler", "vae", "safety_checker"):
        module = quantized.get_submodule(part)
        assert not any(isinstance(layer, Fp8Linear) for layer in module.modules())
