"""A bundle with styles: what requests get, and that a switch between two of them loads nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnxruntime
import pytest

from castmate.engines.bundle import Bundle
from castmate.engines.manifest import MANIFEST
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.errors import BundleCorrupt, InvalidRequest
from castmate.images import Reference
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import GenerateRequest
from demo_model.warm import BUNDLE
from export.bundle import graph_spec, styles_spec, write_golden
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.step_caching import bundle_graphs
from export.lora.branches import NO_SLOTS
from export.lora.fuse import Lora
from export.lora.styles import Style, prepare
from export.precision import Precision
from export.to_onnx import to_onnx
from export.verify import verify_graphs
from tests.export.conftest import record_golden
from tests.export.kept import kept
from tests.export.lora.test_styles import weak, without_encoders

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCALES = {"faint": 0.2, "strong": 1.0}
STYLED = ("modulation", "transformer")
PRECISION = Precision.FP16_WEIGHTS
REFERENCE = Reference.from_bytes((BUNDLE / "references/mira.png").read_bytes(), "mira.png")


def lora_file(network: InstantCharacter, folder: Path) -> Path:
    return weak(without_encoders("kohya"), network, folder)


@pytest.fixture(scope="session")
def styled_bundle(network: InstantCharacter, bundle_folder: Path) -> Bundle:
    """The network with two styles, whole."""

    def make(folder: Path) -> None:
        shutil.copytree(bundle_folder, folder)
        with tempfile.TemporaryDirectory() as scratch:
            path = lora_file(network, Path(scratch))
            styles = prepare(network, [Style(n, Lora(path, s)) for n, s in SCALES.items()])
        assert styles is not None
        try:
            golden = record_golden(network, step_caching=False)
            makers = bundle_graphs(network, step_caching=False)
            manifest = json.loads((folder / MANIFEST).read_text())
            for name in STYLED:
                files = to_onnx(makers[name](), folder / f"{name}.onnx", precision=PRECISION)
                manifest["graphs"][name] = graph_spec(files).model_dump()
            spec = write_golden(golden, folder, PRECISION, makers)
        finally:
            network.style_slots = NO_SLOTS
        manifest["golden"] = spec.model_dump()
        manifest["styles"] = styles_spec(styles, folder, PRECISION.dtype).model_dump()
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return kept("micro-styles", make)


@pytest.fixture
def pipeline(styled_bundle: Bundle) -> Pipeline:
    return Pipeline(styled_bundle, OnnxRuntime(styled_bundle))


def draw(pipeline: Pipeline, style: str = "") -> bytes:
    request = GenerateRequest.parse(
        {"prompt": "a fox", "image": "-", "size": "512*512", "seed": 5, "style": style}
        | {"num_inference_steps": 2, "enable_safety_checker": False}
    )
    return pipeline.generate(request, REFERENCE, lambda done, total: None).images[0].data


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
    for style in ("strong", "faint", "", "strong"):
        assert draw(pipeline, style) == first[style], "the same style again, the same picture"
    assert len({*first.values()}) == 3


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
