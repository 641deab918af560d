"""The demo model through every step that the full-size one goes: precisions, FP8, engines."""

from __future__ import annotations

import copy
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.metrics import Identity, cosines
from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.engines.plan import Flavour, PlanManifest
from castmate.families.instantcharacter.graphs import PARTS
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from demo_model.build import STEP_CACHING
from demo_model.checkpoint import load_shipped
from export.build import Options, build_bundle
from export.bundle import write_bundle
from export.calibrate import Calibration, calibrate
from export.families.instantcharacter.network import InstantCharacter
from export.precision import Precision, Quantization
from export.quantize import quantize
from export.samples import Prompts, TokenizerFile, samples
from export.verify import limits_of, verify_graphs, verify_picture

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


def exported(
    toon: InstantCharacter,
    calibration: Calibration,
    folder: Path,
    precision: Precision,
    quantization: Quantization,
) -> Bundle:
    network = copy.deepcopy(toon)
    quantize(network.denoiser, calibration.amax, quantization)
    write_bundle(
        network,
        folder,
        description="The demo model otherwise.",
        tokenizers={name: tokenizer(name) for name in SHIPPED.manifest.tokenizers},
        precision=precision,
        quantization=quantization,
        step_caching=STEP_CACHING,
    )
    return Bundle.open(folder)


def tokenizer(name: str) -> TokenizerFile:
    spec = SHIPPED.manifest.tokenizers[name]
    return TokenizerFile(SHIPPED.file(spec), spec.max_length, spec.pad_id, spec.unk_id)


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
        (Precision.FP32, Quantization.NONE),
        (Precision.FP16, Quantization.NONE),
        (Precision.FP32, Quantization.FP8_ATTENTION),
    ],
)
def test_every_precision_draws_the_same_character(
    toon: InstantCharacter,
    calibration: Calibration,
    precision: Precision,
    quantization: Quantization,
    tmp_path: Path,
) -> None:
    bundle = exported(toon, calibration, tmp_path / "toon", precision, quantization)
    limits, runtime = limits_of(precision, quantization), OnnxRuntime(bundle)
    if quantization is Quantization.NONE:  # random inputs exceed what calibration has seen
        verify_graphs(bundle, runtime, toon, limits)
    verify_picture(bundle, runtime, toon, Prompts.of(SHIPPED), SAMPLE, STEPS, limits)
    identity = Identity(SHIPPED, OnnxRuntime(SHIPPED))
    expected, found = (identity.features(picture(some)) for some in (SHIPPED, bundle))
    assert min(cosines(found, expected).values()) > 0.99


@pytest.fixture(scope="module")
def fp8_toon(
    toon: InstantCharacter, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    folder = tmp_path_factory.mktemp("fp8") / "toon"
    return exported(toon, calibration, folder, Precision.BF16, Quantization.FP8)


@pytest.mark.parametrize("target", ["8.9", "12.0"])
def test_its_fp8_engines_are_built_without_a_fallback(
    fp8_toon: Bundle, target: str, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx_cu13 is not installed")
    build_bundle(fp8_toon, tmp_path, Options(Flavour.TENSORRT_RTX, target))
    made = Bundle.open(tmp_path)
    made.check()
    found = {
        name: PlanManifest.beside(tmp_path / f"{name}.plan").layers for name in made.manifest.graphs
    }
    for name, layers in found.items():
        assert layers is not None, name
        assert layers.fp32_gemms <= (name == "safety_checker"), name
    parts = [layers for name in PARTS if (layers := found[name]) is not None]
    assert [layers.fused_attentions for layers in parts] == [2, 10, 0]
    # 56 quantized layers; for SM89 those with one input are merged, for SM120 they are not.
    assert sum(layers.fp8_gemms for layers in parts) == {"8.9": 47, "12.0": 56}[target]
