"""Plans on a real GPU against the torch network: `pytest -m gpu`."""

from __future__ import annotations

import bisect
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from castmate.engines.bundle import Bundle
from castmate.engines.cuda import Device
from castmate.engines.footprint import plan_bundle
from castmate.engines.golden import Call
from castmate.engines.plan import Flavour
from castmate.engines.proof import ProvenRuntime
from castmate.engines.residency import Share
from castmate.engines.tensorrt import TensorRTRuntime
from castmate.errors import BundleMismatch
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from export.build import Options, build_bundle
from export.builder import installed
from export.bundle import write_bundle
from export.calibrate import calibrate
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.unquantized import UNQUANTIZED
from export.family import merges
from export.precision import Precision
from export.quantization.fp8 import FP8, FP8_ATTENTION
from export.quantization.quantize import quantize
from export.samples import Prompts, TokenizerFile, samples
from export.targets import RTX_TARGETS
from export.trajectory import decode, denoise
from export.verify import psnr_db, verify_graphs
from tests.export.conftest import letters, make_wide, record_golden

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(900)]
MIN_PSNR_DB = 25.0
"""Of 8-bit pictures after three steps, both in bf16 and FP8 with kernels of their own."""


@pytest.fixture(scope="module")
def options() -> Options:
    """The flavour that is installed and is for this GPU; without one the tests are skipped."""
    try:
        here = Device().compute_capability
    except BundleMismatch as error:
        pytest.skip(str(error))
    for flavour in installed():
        if flavour is Flavour.TENSORRT or here in RTX_TARGETS:
            return Options(flavour, here)
    names = ", ".join(installed()) or "none"
    pytest.skip(f"no TensorRT for a GPU of compute capability {here}; installed: {names}")


@pytest.fixture(scope="module")
def golden(options: Options) -> dict[str, Call]:
    return record_golden(make_wide(torch.bfloat16), step_caching=False)


@pytest.fixture(scope="module")
def network(options: Options, tokenizer: TokenizerFile, prompts: Prompts) -> InstantCharacter:
    made = make_wide(torch.bfloat16)
    recorded = calibrate(made, prompts, samples(1, 512), steps=2)
    hopper = options.target == "9.0"
    scheme = FP8 if hopper else FP8_ATTENTION
    quantize(made, recorded.amax, scheme, UNQUANTIZED, merges(made))
    return made


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TokenizerFile:
    return letters(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def prompts(tokenizer: TokenizerFile) -> Prompts:
    return Prompts.of_files({"tokenizer": tokenizer, "tokenizer_2": tokenizer})


@pytest.fixture(scope="module")
def graphs(
    network: InstantCharacter,
    golden: dict[str, Call],
    options: Options,
    tokenizer: TokenizerFile,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    folder = tmp_path_factory.mktemp("onnx")
    write_bundle(
        network,
        folder,
        description="Random weights.",
        licences={},
        tokenizers={"tokenizer": tokenizer, "tokenizer_2": tokenizer},
        golden=golden,
        precision=Precision.BF16,
        quantization=FP8 if options.target == "9.0" else FP8_ATTENTION,
    )
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def runtime(
    options: Options, graphs: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> TensorRTRuntime:
    plans = tmp_path_factory.mktemp("plans")
    build_bundle(graphs, plans, options)
    return TensorRTRuntime(Bundle.open(plans))


def draw(runtime: TensorRTRuntime, size: str = "512*512") -> np.ndarray:
    return draw_with(Pipeline(runtime.bundle, runtime), size)


def draw_with(pipeline: Pipeline, size: str = "512*512") -> np.ndarray:
    sample = samples(1, 512)[0]
    request = GenerateRequest.parse(
        {
            "prompt": sample.prompt,
            "image": str(sample.reference),
            "size": size,
            "seed": sample.seed,
            "num_inference_steps": 3,
            "enable_safety_checker": False,
        }
    )
    reference = Reference.from_bytes(Path(sample.reference).read_bytes(), "reference")
    result = pipeline.generate(request, reference, lambda done, total: None)
    return np.asarray(Image.open(BytesIO(result.images[0].data)).convert("RGB"))


def test_the_picture_is_torch_s_but_for_rounding(
    runtime: TensorRTRuntime, network: InstantCharacter, prompts: Prompts
) -> None:
    expected = decode(network, denoise(network, samples(1, 512)[0], prompts, steps=3))
    found = draw(runtime)
    assert expected.std() > 5, "a flat picture would prove nothing"
    assert psnr_db(found, expected) > MIN_PSNR_DB


def test_every_engine_computes_what_torch_recorded(
    runtime: TensorRTRuntime, tmp_path: Path
) -> None:
    bundle = runtime.bundle
    print(*verify_graphs(bundle, runtime), sep="\n")
    for _ in range(2):  # the second time nothing is compared
        proven = ProvenRuntime(runtime, bundle, tmp_path)
        assert {graph: proven.load(graph) for graph in bundle.manifest.graphs}


def test_the_same_seed_gives_the_same_picture_and_sizes_can_alternate(
    runtime: TensorRTRuntime,
) -> None:
    first = draw(runtime)
    assert draw(runtime, "768*512").shape == (512, 768, 3)
    np.testing.assert_array_equal(draw(runtime), first)


def test_a_plan_whose_weights_are_streamed_draws_the_same_but_for_rounding(
    runtime: TensorRTRuntime, options: Options, tmp_path: Path, graphs: Bundle
) -> None:
    build_bundle(graphs, tmp_path, replace(options, weight_streaming=True))
    streamed = draw(TensorRTRuntime(Bundle.open(tmp_path)))
    assert psnr_db(streamed, draw(runtime)) > MIN_PSNR_DB


def test_plans_that_take_turns_draw_the_same_and_a_known_prompt_loads_nothing(
    runtime: TensorRTRuntime,
) -> None:
    crowded = TensorRTRuntime(runtime.bundle, share=Share(memory=least_memory(runtime.bundle)))
    assert crowded.residency.parked
    pipeline = Pipeline(runtime.bundle, crowded)
    first = draw_with(pipeline)
    np.testing.assert_array_equal(first, draw(runtime))
    np.testing.assert_array_equal(draw_with(pipeline), first)


def least_memory(bundle: Bundle) -> int:
    """The fewest MiB, in bytes, in which a bundle can be drawn with."""
    most = 2**16
    return bisect.bisect_left(range(most), True, key=lambda mib: fits(bundle, mib)) * 2**20


def fits(bundle: Bundle, mib: int) -> bool:
    try:
        plan_bundle(bundle, mib * 2**20, 0)
    except BundleMismatch:
        return False
    return True


def test_a_size_outside_the_profile_is_refused(runtime: TensorRTRuntime) -> None:
    decoder = runtime.load("vae_decoder")
    with pytest.raises(BundleMismatch, match="was built for `latents`"):
        decoder(latents=runtime.upload(np.zeros((1, 2, 2, 64), np.float32)))


def test_a_plan_of_another_gpu_is_refused(runtime: TensorRTRuntime) -> None:
    plan = runtime.bundle.path / "text_encoder.plan.json"
    whole = plan.read_text()
    try:
        plan.write_text(whole.replace('"compute_capability": "', '"compute_capability": "1'))
        with pytest.raises(BundleMismatch, match="GPU compute capability"):
            runtime.load("text_encoder")
    finally:
        plan.write_text(whole)
