"""The whole way in one call: published weights and a preset of one's own to a bundle that draws."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from export.all import make
from export.errors import ExportError
from export.families.instantcharacter.load import load_network
from export.families.instantcharacter.network import InstantCharacter
from export.golden_limits import LEAST
from export.lora.fuse import FusedNetwork
from export.precision import Precision
from export.presets.preset import Preset
from export.quantization.fp8 import FP8
from export.quantization.none import NONE
from export.quantization.registry import least_psnr_db
from export.recipe import Recipe
from export.samples import REFERENCES, Prompts, samples
from export.verify import VerificationError, verify_graphs, verify_picture
from tests.export.conftest import PRESET, preset_file, sources
from tests.export.lora.layouts import LAYOUTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Made:
    """What one call made: `folder` is what it was given, `bundle` what it returned."""

    recipe: Recipe
    preset: Preset
    folder: Path
    bundle: Bundle


@pytest.fixture(scope="module")
def made(
    published: Path, network: InstantCharacter, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    given = tmp_path_factory.mktemp("preset")
    layout = LAYOUTS["kohya"]
    layout.save(layout.tensors(network.state_dict()), given)
    preset = Preset.read(preset_file(given))
    recipe = Recipe(
        sources(published),
        precision=Precision.FP32,
        quantization=FP8,
        samples=1,
        steps=2,
        side=512,
        preset=preset,
    )
    folder = tmp_path_factory.mktemp("made") / "out"
    return Made(recipe, preset, folder, Bundle.open(make(recipe, folder, network.config)))


def test_weights_become_a_verified_fp8_bundle(
    made: Made, network: InstantCharacter, prompts: Prompts
) -> None:
    bundle, recipe = made.bundle, made.recipe
    bundle.check()
    assert bundle.manifest.precision == "fp32, transformer and encoders fp8"
    runtime = OnnxRuntime(bundle)
    loaded = load_network(recipe.sources, torch.float32, made.preset.configured(network.config))
    FusedNetwork(loaded).apply(made.preset.loras())
    least = least_psnr_db(recipe.precision, recipe.quantization)
    found = {d.output: d for d in verify_graphs(bundle, runtime)}
    assert found["text_encoder.pooled_projections"].relative_l2 < 1e-4
    quantized = {
        "text_encoder_2.prompt_embeds",
        "image_encoder.low_res_deep",
        "image_encoder_2.low_res_deep_2",
        "subject_projector.subject_features",
        "transformer.next_latents",
    }
    for output in quantized:
        assert 1e-4 < found[output].relative_l2 < 1e-1, output
    assert verify_picture(bundle, runtime, loaded, prompts, samples(1, 512)[0], 2, least) > 20
    exact = with_limit(bundle, "transformer", LEAST[Precision.FP32])
    with pytest.raises(VerificationError, match=r"transformer\.next_latents: relative L2"):
        verify_graphs(exact, runtime)


def with_limit(bundle: Bundle, graph: str, limit: float) -> Bundle:
    """A bundle that allows a graph another difference from its golden tensors."""
    golden = bundle.manifest.golden
    assert golden is not None
    changed = golden.model_copy(update={"limits": {**golden.limits, graph: limit}})
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"golden": changed}))


def test_a_second_call_changes_nothing_and_other_choices_are_refused(
    made: Made, network: InstantCharacter
) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*.*")}
    assert len(before) > 12
    assert make(made.recipe, made.folder, network.config) == made.bundle.path
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("*.*")} == before
    changed = replace(made.recipe, steps=3, quantization=NONE, preset=None)
    with pytest.raises(ExportError, match="other choices of preset, quantization, steps"):
        make(changed, made.folder, network.config)


def test_a_preset_of_ones_own_is_recorded_in_the_bundle_and_the_calibration(made: Made) -> None:
    manifest = made.bundle.manifest
    assert (manifest.name, manifest.description) == ("micro-tiny-2", "Random weights in few steps.")
    (lora,) = manifest.loras
    assert (lora.file, lora.scale) == ("style.safetensors", 0.015625)
    assert manifest.profile.steps.opt == 2
    assert {"tiny", "FLUX.1-dev", "InstantCharacter"} <= set(manifest.licences)
    recorded = json.loads((made.folder / "calibration.json").read_text())
    assert (recorded["network"], recorded["steps"]) == ("micro-tiny-2", 2)


def test_the_bundle_draws_as_the_preset_says(made: Made) -> None:
    pipeline = Pipeline(made.bundle, OnnxRuntime(made.bundle))
    reference = Reference.from_bytes((REFERENCES / "mira.png").read_bytes(), "mira")

    def draw(**values: Any) -> Any:
        asked = {"prompt": "waving", "image": "-", "size": "512*512", "seed": 7} | values
        return pipeline.generate(GenerateRequest.parse(asked), reference, lambda *_: None)

    by_itself = draw()
    assert by_itself.drawn_with == {**PRESET["defaults"], "true_cfg_scale": 4.0}
    assert by_itself.warnings == ()
    assert by_itself.images == draw(**PRESET["defaults"]).images
    far = draw(num_inference_steps=6)
    assert far.drawn_with["num_inference_steps"] == 6
    assert far.warnings == (
        "num_inference_steps 6 is far from what 'micro-tiny-2' was made for (1 to 4, by default "
        "2); expect a worse picture, or leave it out.",
    )
