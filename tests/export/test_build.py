"""Plans from ONNX: really built by TensorRT-RTX, inspected, kept, refused when they do not fit."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from castmate.engines.bundle import Bundle
from castmate.engines.family import optimization_profile
from castmate.engines.plan import PLAN_FORMAT, Flavour, PlanManifest, manifest_path
from castmate.errors import BundleCorrupt, BundleMismatch, BundleNotFound
from castmate.families.instantcharacter.graphs import OPTIONAL, PARTS, graph_names
from export import build as build_step
from export.build import Options, build_bundle, main
from export.builder import Job, load_tensorrt
from export.errors import ExportError, MissingTool, NotEnough
from export.quantization.fp8 import FP8
from export.quantization.none import NONE
from export.quantization.scheme import Scheme
from export.targets import check_target

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx_cu13 is not installed")

ADA = Options(Flavour.TENSORRT_RTX, "8.9")
SMALL = ("text_encoder", "transformer_finish")


def part(bundle: Bundle, *names: str) -> Bundle:
    """A bundle's object with some of its graphs only: enough to build, not to serve."""
    graphs = {name: bundle.manifest.graphs[name] for name in names}
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"graphs": graphs}))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", ["8.9", "12.0"])
def test_every_graph_becomes_an_engine_without_a_fallback(
    fp8_bundle: Bundle, target: str, tmp_path: Path
) -> None:
    build_bundle(fp8_bundle, tmp_path, Options(Flavour.TENSORRT_RTX, target))
    made = Bundle.open(tmp_path)
    made.check()
    assert made.manifest.engine == "tensorrt_rtx"
    assert made.manifest.gpu == f"compute capability {target}"
    assert "tensorrt_rtx" in made.manifest.created_with
    assert set(made.manifest.graphs) == set(graph_names(step_caching=True, optional=OPTIONAL))
    plans = {name: PlanManifest.beside(tmp_path / f"{name}.plan") for name in made.manifest.graphs}
    found = {name: plan.layers for name, plan in plans.items()}
    for name, layers in found.items():
        assert layers is not None, name
        # The safety checker's last product, on 17 concepts, is fp32 in the graph itself.
        assert layers.gemms_reading.get("Float", 0) <= (name == "safety_checker")
    parts = [layers for name in PARTS if (layers := found[name]) is not None]
    assert [layers.fused_attentions for layers in parts] == [2, 2, 0]
    assert [layers.attentions_reading.get("FP8", 0) for layers in parts] == [2, 2, 0]
    # 21 quantized layers, of which those with one input were merged before the export.
    assert sum(layers.gemms_reading.get("FP8", 0) for layers in parts) == 12
    # Of the encoders 12 (T5 without `wo`), 18, 18 and 26 layers; for SM89 TensorRT merges those
    # with one input, for SM120 it does not.
    gemms = {name: layers.gemms_reading.get("FP8", 0) for name, layers in found.items() if layers}
    encoders = ("text_encoder_2", "image_encoder", "image_encoder_2", "subject_projector")
    assert [gemms[name] for name in encoders] == {
        "8.9": [6, 12, 12, 19],
        "12.0": [12, 18, 18, 26],
    }[target]
    assert gemms["text_encoder"] == gemms["vae_decoder"] == gemms["safety_checker"] == 0
    assert plans["transformer_head"].profiles[0]["latents"].max == (1, 48, 48, 64)
    for plan in plans.values():
        assert 0 < plan.weight_bytes < 2 * plan.num_bytes
        assert len(plan.activation_bytes) == len(plan.profiles)
        assert min(plan.activation_bytes) > 0


@pytest.mark.slow
def test_a_second_build_keeps_what_fits_and_repairs_the_rest(
    fp8_bundle: Bundle, tmp_path: Path
) -> None:
    source = part(fp8_bundle, *SMALL)
    build_bundle(source, tmp_path, ADA)
    kept, broken = (tmp_path / f"{name}.plan" for name in SMALL)
    before = kept.stat().st_mtime_ns
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(BundleCorrupt, match="interrupted or the file was changed"):
        PlanManifest.beside(broken)
    build_bundle(source, tmp_path, ADA)
    assert kept.stat().st_mtime_ns == before
    PlanManifest.beside(broken)
    build_bundle(source, tmp_path, replace(ADA, max_images=2))
    assert kept.stat().st_mtime_ns == before, "its profile does not name the pictures"
    assert PlanManifest.beside(broken).profiles[0]["latents"].max[0] == 2
    assert not list(tmp_path.glob(".build-*"))


@pytest.mark.slow
def test_engines_for_smaller_pictures_take_less_memory(fp8_bundle: Bundle, tmp_path: Path) -> None:
    source = part(fp8_bundle, "vae_decoder")
    found = {}
    for side in (512, 1536):
        made = build_bundle(source, tmp_path / str(side), replace(ADA, max_side=side))
        assert made.profile.side.max == side
        plan = PlanManifest.beside(tmp_path / str(side) / "vae_decoder.plan")
        found[side] = max(plan.activation_bytes)
    assert found[512] < found[1536] / 4
    with pytest.raises(ExportError, match="--max-side 400: the bundle draws 512 to 1536"):
        build_bundle(source, tmp_path / "none", replace(ADA, max_side=400))


@pytest.mark.slow
def test_a_stopped_build_is_no_bundle_and_a_plan_without_a_manifest_is_refused(
    fp8_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = part(fp8_bundle, *SMALL)
    build_bundle(source, tmp_path, ADA)
    (tmp_path / "transformer_finish.plan.json").unlink()

    def stop(job: Job, path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build_step, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(source, tmp_path, ADA)
    with pytest.raises(BundleNotFound):
        Bundle.open(tmp_path)
    with pytest.raises(BundleCorrupt, match=r"plan\.json cannot be read.*export\.build"):
        PlanManifest.beside(tmp_path / "transformer_finish.plan")
    PlanManifest.beside(tmp_path / "text_encoder.plan")


def test_a_manifest_of_another_format_is_refused(tmp_path: Path) -> None:
    plan = tmp_path / "x.plan"
    plan.write_bytes(b"plan")
    manifest_path(plan).write_text('{"format": 99}')
    with pytest.raises(BundleMismatch, match="format 99"):
        PlanManifest.beside(plan)
    manifest_path(plan).write_text(json.dumps({"format": PLAN_FORMAT, "graph": "x"}))
    with pytest.raises(BundleCorrupt, match="Build it again"):
        PlanManifest.beside(plan)


@pytest.mark.slow
def test_an_unreadable_graph_is_named_and_leaves_nothing(
    fp8_bundle: Bundle, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(fp8_bundle.path, copy)
    source = part(Bundle(copy, fp8_bundle.manifest), "text_encoder")
    onnx_file = copy / "text_encoder.onnx"
    onnx_file.write_bytes(onnx_file.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleCorrupt, match=r"text_encoder\.onnx was changed"):
        build_bundle(source, tmp_path / "plans", ADA)
    assert [path.name for path in (tmp_path / "plans").iterdir() if path.suffix == ".plan"] == []


@pytest.mark.slow
def test_a_killed_builder_says_that_memory_ran_out(
    fp8_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "killed"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(NotEnough, match=f"killed by signal {signal.SIGKILL:d}.*memory"):
        build_bundle(part(fp8_bundle, "text_encoder"), tmp_path / "plans", ADA)
    assert not list((tmp_path / "plans").glob("*.plan"))


@pytest.mark.slow
def test_too_little_memory_or_disk_is_refused_before_anything_is_built(
    fp8_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(build_step, "available_memory", lambda: 2**20)
        with pytest.raises(NotEnough, match="GiB of host memory"):
            build_bundle(fp8_bundle, tmp_path, ADA)
    usage = shutil.disk_usage(tmp_path)._replace(free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(NotEnough, match=r"GiB are free on the disk.*--out"):
        build_bundle(fp8_bundle, tmp_path, ADA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flavour", "says"),
    [
        (Flavour.TENSORRT, r"pip install 'tensorrt'.*tensorrt:YY\.MM-py3.*tensorrt_rtx"),
        (Flavour.TENSORRT_RTX, r"pip install 'tensorrt_rtx_cu13==1\.7\.1\.116'.*without a GPU"),
    ],
)
def test_a_missing_tensorrt_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, flavour: Flavour, says: str
) -> None:
    monkeypatch.setitem(sys.modules, flavour.value, None)
    with pytest.raises(MissingTool, match=says):
        load_tensorrt(flavour)


@pytest.mark.parametrize(
    ("flavour", "target", "scheme", "says"),
    [
        (Flavour.TENSORRT_RTX, "9.0", NONE, r"builds for 8\.0, .*H100.*--flavour tensorrt"),
        (Flavour.TENSORRT_RTX, "8.6", FP8, "no FP8 arithmetic"),
        (Flavour.TENSORRT_RTX, "rtx4090", NONE, "builds for"),
    ],
)
def test_a_target_that_cannot_be_is_refused(
    flavour: Flavour, target: str, scheme: Scheme, says: str
) -> None:
    with pytest.raises(ExportError, match=says):
        check_target(flavour, target, scheme.kernels)


def test_the_command_line_reports_errors_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "x"), "--target", "8.9"]) == 1
    assert "There is no bundle" in capsys.readouterr().err


@pytest.mark.slow
def test_every_dynamic_dimension_has_a_range_and_text_has_one_length(fp8_bundle: Bundle) -> None:
    manifest = fp8_bundle.manifest
    for name in manifest.graphs:
        optimization_profile(manifest, name)
    tokens = manifest.tokenizers["tokenizer_2"].max_length
    shapes = optimization_profile(manifest, "transformer_head")
    cell = manifest.constants["pixels_per_token"]
    assert shapes["rotary_emb_cos"].max == (tokens + (1536 // cell) ** 2, 128)
    assert shapes["modulation"].opt[:2] == (28, 1)
    assert optimization_profile(manifest, "transformer_finish")["sigmas"].opt == (29,)
    assert shapes["prompt_embeds"].min == (1, tokens, 96)
