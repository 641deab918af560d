"""A bundle with styles: what requests get, and that a switch between two of them loads nothing."""

from __future__ import annotations

import tempfile
from io import BytesIO
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.errors import BundleCorrupt, InvalidRequest
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from demo_model.warm import BUNDLE
from export.families.instantcharacter.network import InstantCharacter
from export.lora.branches import NO_SLOTS
from export.lora.fuse import FusedNetwork, Lora
from export.lora.styles import Style, prepare
from export.precision import Precision
from export.verify import psnr_db, verify_graphs
from tests.export.conftest import record_golden, write
from tests.export.kept import kept
from tests.export.lora.test_styles import weak, without_encoders

pytestmark = pytest.mark.slow

SCALES = {"faint": 0.2, "strong": 1.0}


def lora_file(network: InstantCharacter, folder: Path) -> Path:
    return weak(without_encoders("kohya"), network, folder)


@pytest.fixture(scope="session")
def styled_bundle(network: InstantCharacter) -> Bundle:
    """The network with two styles, whole."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            path = lora_file(network, Path(scratch))
            styles = prepare(network, [Style(n, Lora(path, s)) for n, s in SCALES.items()])
        try:
            golden = record_golden(network, step_caching=False)
            options = {"precision": Precision.FP16_WEIGHTS, "golden": golden, "styles": styles}
            write(network, folder, **options)
        finally:
            network.style_slots = NO_SLOTS

    return kept("micro-styles", make)


@pytest.fixture
def pipeline(styled_bundle: Bundle) -> Pipeline:
    return Pipeline(styled_bundle, OnnxRuntime(styled_bundle))


def draw(pipeline: Pipeline, style: str = "") -> bytes:
    request = GenerateRequest.parse(
        {"prompt": "a fox", "image": "-", "size": "512*512", "seed": 5, "style": style}
        | {"num_inference_steps": 2, "enable_safety_checker": False}
    )
    picture = BUNDLE / "references/mira.png"
    reference = Reference.from_bytes(picture.read_bytes(), picture.name)
    return pipeline.generate(request, reference, lambda done, total: None).images[0].data


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


def test_without_a_style_the_picture_is_that_of_a_bundle_without_styles(
    pipeline: Pipeline, bundle_folder: Path
) -> None:
    plain = Bundle.open(bundle_folder)
    assert draw(pipeline) == draw(Pipeline(plain, OnnxRuntime(plain)))


def test_a_style_switches_between_two_requests_without_reloading(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a switch loads nothing")

    first = {style: draw(pipeline, style) for style in ("", *SCALES)}
    for target, name in (
        (onnxruntime, "InferenceSession"),
        (np, "load"),
        (Bundle, "file"),
        (Path, "open"),
        (Path, "read_bytes"),
    ):
        monkeypatch.setattr(target, name, refuse)
    reference = Image.new("RGB", (64, 64), "red")
    stream = BytesIO()
    reference.save(stream, "PNG")
    known = Reference.from_bytes(stream.getvalue(), "red.png")
    drawn: dict[str, bytes] = {}
    for style in ("strong", "faint", "", "strong"):
        request = GenerateRequest.parse(
            {"prompt": "a fox", "image": "-", "size": "512*512", "seed": 5, "style": style}
            | {"num_inference_steps": 2, "enable_safety_checker": False}
        )
        data = pipeline.generate(request, known, lambda done, total: None).images[0].data
        assert drawn.setdefault(style, data) == data, "the same style again, the same picture"
    assert len({*first.values()}) == len({*drawn.values()}) == 3


def test_a_style_draws_the_picture_of_a_bundle_that_it_is_fused_into(
    network: InstantCharacter, pipeline: Pipeline, tmp_path: Path
) -> None:
    fusing = FusedNetwork(network)
    fusing.apply([Lora(lora_file(network, tmp_path / "lora"), SCALES["faint"])])
    try:
        golden = record_golden(network, step_caching=False)
        write(network, tmp_path / "fused", precision=Precision.FP16_WEIGHTS, golden=golden)
    finally:
        fusing.remove()
    fused = Bundle.open(tmp_path / "fused")
    found, expected = pixels(draw(pipeline, "faint")), draw(Pipeline(fused, OnnxRuntime(fused)))
    assert psnr_db(found, pixels(expected)) > 40
    assert psnr_db(pixels(draw(pipeline)), pixels(expected)) < 35


def test_an_unknown_style_is_an_error_that_names_the_known_ones(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidRequest) as caught:
        draw(pipeline, "stong")
    (problem,) = caught.value.problems
    assert problem.parameter == "style"
    assert problem.allowed == "faint, strong, or nothing"
    assert problem.hint == "did you mean `strong`?"


def test_golden_tensors_prove_the_branches(styled_bundle: Bundle) -> None:
    verify_graphs(styled_bundle, OnnxRuntime(styled_bundle))


def test_a_changed_file_of_a_style_is_refused(styled_bundle: Bundle, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "changed"
    shutil.copytree(styled_bundle.path, folder)
    (path,) = folder.glob("style-faint.npz")
    path.write_bytes(path.read_bytes()[:-1])
    changed = Bundle.open(folder)
    with pytest.raises(BundleCorrupt, match=r"style-faint.npz was changed"):
        Pipeline(changed, OnnxRuntime(changed))
