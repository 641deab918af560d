"""The demo model through every step that the full-size one goes: precisions, FP8, engines."""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.metrics import Features, Identity, cosines
from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.engines.plan import Flavour, LayerCounts, PlanManifest
from castmate.families.instantcharacter.graphs import PARTS
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from demo_model.build import STEP_CACHING, shipped_styles
from demo_model.checkpoint import load_shipped
from export.build import Options, build_bundle
from export.calibrate import Calibration, calibrate
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.step_caching import bundle_graphs, step_caching_graphs
from export.families.instantcharacter.unquantized import UNQUANTIZED
from export.family import merges, sensitive
from export.lora.styles import prepare
from export.precision import Precision, convert
from export.quantization.fp8 import FP8, FP8_ATTENTION
from export.quantization.none import NONE
from export.quantization.quantize import quantize
from export.quantization.registry import SCHEMES, least_psnr_db
from export.quantization.scheme import Scheme
from export.samples import Prompts, samples
from export.verify import verify_graphs, verify_picture
from tests.export.conftest import replace_graphs
from tests.export.kept import kept

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 8
(SAMPLE,) = samples(1, 512, first_seed=3)
SHIPPED = Bundle.open("toon")


@pytest.fixture(scope="module")
def toon() -> InstantCharacter:
    return load_shipped(SHIPPED)


@pytest.fixture(scope="module")
def calibration(toon: InstantCharacter) -> Calibration:
    return calibrate(toon, Prompts.of(SHIPPED), samples(2, 512), STEPS)


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity(SHIPPED, OnnxRuntime(SHIPPED))


@pytest.fixture(scope="module")
def expected(identity: Identity) -> Features:
    """Who is in the picture of the shipped bundle."""
    return identity.features(picture(SHIPPED))


def exported(
    toon: InstantCharacter,
    calibration: Calibration,
    precision: Precision,
    quantization: Scheme,
) -> Bundle:
    """The demo model otherwise; the shipped bundle holds what is neither quantized nor narrower."""
    if (precision, quantization) == (Precision.FP16_WEIGHTS, NONE):
        return SHIPPED

    def make(folder: Path) -> None:
        network = copy.deepcopy(toon)
        convert(network, precision.dtype)
        prepare(network, shipped_styles())
        spared = sensitive(network)
        groups = merges(network)
        quantize(network.denoiser, calibration.amax, quantization, UNQUANTIZED, groups, spared)
        graphs = step_caching_graphs(network)
        if quantization is NONE:
            graphs = bundle_graphs(network, step_caching=True)
        shutil.copytree(SHIPPED.path, folder)
        replace_graphs(Bundle.open(folder), graphs, precision, STEP_CACHING, quantization)

    return kept(f"toon-{precision}-{quantization}", make)


def picture(bundle: Bundle) -> np.ndarray:
    pipeline = Pipeline(bundle, OnnxRuntime(bundle))
    request = GenerateRequest.parse(
        {
            "image": "-",
            "prompt": SAMPLE.prompt,
            "size": "512*512",
            "seed": SAMPLE.seed,
            "num_inference_steps": STEPS,
        }
    )
    reference = Reference.from_bytes(SAMPLE.reference.read_bytes(), "the reference")
    result = pipeline.generate(request, reference, lambda done, total: None)
    return np.asarray(Image.open(BytesIO(result.images[0].data)).convert("RGB"))


@pytest.mark.parametrize(
    ("precision", "quantization"),
    [
        (Precision.FP16_WEIGHTS, NONE),
        # Of no use for FLUX, whose residual stream overflows, and every graph is exported for it.
        pytest.param(Precision.FP16, NONE, marks=pytest.mark.full_size),
        (Precision.FP32, FP8_ATTENTION),
    ],
)
def test_every_precision_draws_the_same_character(
    toon: InstantCharacter,
    calibration: Calibration,
    identity: Identity,
    expected: Features,
    precision: Precision,
    quantization: Scheme,
) -> None:
    bundle = exported(toon, calibration, precision, quantization)
    least, runtime = least_psnr_db(precision, quantization), OnnxRuntime(bundle)
    verify_graphs(bundle, runtime)
    verify_picture(bundle, runtime, toon, Prompts.of(SHIPPED), SAMPLE, STEPS, least)
    found = identity.features(picture(bundle))
    assert min(cosines(found, expected).values()) > 0.99


def built(bundle: Bundle, target: str, folder: Path) -> list[LayerCounts]:
    """What TensorRT-RTX makes of the parts of a step, which are all that is quantized."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx_cu13 is not installed")
    graphs = {name: bundle.manifest.graphs[name] for name in PARTS}
    source = replace(bundle, manifest=bundle.manifest.model_copy(update={"graphs": graphs}))
    build_bundle(source, folder, Options(Flavour.TENSORRT_RTX, target))
    plans = [PlanManifest.beside(folder / f"{name}.plan") for name in PARTS]
    return [plan.layers for plan in plans if plan.layers is not None]


@pytest.mark.full_size  # `test_build` builds all graphs of a network that is closer to FLUX
@pytest.mark.parametrize("target", ["8.9", "12.0"])
def test_its_fp8_engines_are_built_without_a_fallback(
    toon: InstantCharacter, calibration: Calibration, target: str, tmp_path: Path
) -> None:
    parts = built(exported(toon, calibration, Precision.BF16, FP8), target, tmp_path)
    assert [layers.gemms_reading.get("Float", 0) for layers in parts] == [0, 0, 0]
    assert [layers.fused_attentions for layers in parts] == [2, 10, 0]
    # 56 quantized layers, of which those with one input were merged before the export. For SM89 the
    # keys and values of the subject in all blocks of the tail, which read one input, too, are one.
    assert (
        sum(layers.gemms_reading.get("FP8", 0) for layers in parts)
        == {"8.9": 26, "12.0": 30}[target]
    )


@pytest.mark.full_size
@pytest.mark.parametrize(
    ("scheme", "target", "attentions"),
    [
        ("fp8-attention", "8.9", {"FP8": 6, "BFloat16": 6}),
        ("nvfp4", "12.0", {"FP8": 6, "BFloat16": 6}),
        ("nvfp4-svdquant", "12.0", {"FP8": 6, "BFloat16": 6}),
        ("int8", "8.6", {"BFloat16": 12}),
        ("int4", "8.6", {"BFloat16": 12}),
    ],
)
def test_its_engines_of_every_scheme_are_built_without_a_fallback(
    toon: InstantCharacter,
    calibration: Calibration,
    scheme: str,
    target: str,
    attentions: dict[str, int],
    tmp_path: Path,
) -> None:
    bundle = exported(toon, calibration, Precision.BF16, SCHEMES[scheme])
    parts = built(bundle, target, tmp_path)
    assert [layers.gemms_reading.get("Float", 0) for layers in parts] == [0, 0, 0]
    assert [layers.fused_attentions for layers in parts] == [2, 10, 0]
    # A subject of 16 tokens is too few keys for a kernel in FP8.
    assert sum((Counter(layers.attentions_reading) for layers in parts), Counter()) == attentions
    kernel, *_ = SCHEMES[scheme].kernels
    assert sum(layers.gemms_reading.get(kernel.datatype, 0) for layers in parts) > 0
