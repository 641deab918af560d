"""The programs as `make bench` runs them, on an untrained demo model and at their shortest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.latency import measure as measure_latency
from benchmarks.protocol import Setup, Unfit
from benchmarks.quality import measure as measure_quality
from benchmarks.record import read_all
from benchmarks.report import page
from benchmarks.roofline import measured_ms
from benchmarks.workload import Workload, check_same, prepare
from castmate.engines.bundle import Bundle, graphs_of
from castmate.engines.onnxruntime import OnnxRuntime
from demo_model.build import build
from demo_model.checkpoint import CHECKPOINT, load_network, save_network
from demo_model.config import TOON
from export.environment import write_result
from export.models.network import InstantCharacter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the first exports the demo model
MAX_BUNDLE_BYTES = 22_000_000  # the wheel, which holds little else, must stay below 25 MB


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("benchmarks")
    torch.manual_seed(0)
    save_network(InstantCharacter(TOON), folder)
    (folder / "bundle").mkdir()
    (folder / "bundle/transformer.onnx").write_text("of a bundle before step caching")
    build(load_network(folder / CHECKPOINT), folder / "bundle")
    return Setup(str(folder / "bundle"), str(folder), threads=1)


def test_the_demo_bundle_can_skip_steps_and_holds_no_weight_twice(setup: Setup) -> None:
    bundle = Bundle.open(setup.bundle)
    bundle.check()
    assert set(bundle.manifest.graphs) == set(graphs_of(step_caching=True))
    assert not (bundle.path / "transformer.onnx").exists()
    assert sum(path.stat().st_size for path in bundle.path.iterdir()) < MAX_BUNDLE_BYTES


def test_contenders_are_measured_side_by_side_and_absent_ones_say_why(
    setup: Setup, tmp_path: Path
) -> None:
    names = ("castmate", "castmate-fast", "torch-eager", "tensorrt", "torch-compile-fp8")
    workload = Workload(Path(setup.folder), "512*512", 2)
    figures = json.loads(json.dumps(measure_latency(setup, workload, names, 5)))
    rows: dict[str, dict[str, Any]] = figures["contenders"]
    assert list(rows) == list(names)
    assert "--plans" in rows["tensorrt"]["reason"]
    if not torch.cuda.is_available():
        assert "8.9 or newer" in rows["torch-compile-fp8"]["reason"]
    own = rows["castmate"]
    assert own["heavy_modules_loaded"] == []
    assert rows["torch-eager"]["heavy_modules_loaded"] == ["diffusers", "torch", "transformers"]
    assert {phase: row["runs"] for phase, row in own["phases"].items()} == {
        "new character": 5,
        "new prompt": 5,
        "again": 5,
    }
    assert own["phases"]["new character"]["p50_ms"] > own["stages_p50_ms"]["decode"]
    assert own["stages_p50_ms"]["subject"] < 1 < own["stages_p50_ms"]["denoise"]
    assert own["computed_steps"] == 2
    assert set(figures["ratios_to_castmate"]) == {"castmate-fast", "torch-eager"}
    result = {"request": {"size": "512*512", "num_inference_steps": 2}, "weights": "random"}
    write_result(tmp_path / "latency.json", "latency", result | figures | {"start": {}})
    assert "torch-eager" in page(read_all(tmp_path))


def test_quality_compares_every_way_with_torch_and_with_controls(
    setup: Setup, tmp_path: Path
) -> None:
    figures = measure_quality(
        setup.bundle,
        Path(setup.folder),
        count=2,
        side=512,
        steps=3,
        thresholds=(9.0,),
        judge_folder=tmp_path,
    )
    rows = json.loads(json.dumps(figures))["rows"]
    assert rows["torch fp32"]["psnr_db"]["value"] == 100
    assert rows["castmate"]["psnr_db"]["value"] > 40
    assert rows["other kernels (control)"]["psnr_db"]["value"] > 40
    assert rows["another seed (control)"]["psnr_db"]["value"] < 40
    assert rows["threshold 9.0"]["computed_steps"]["value"] == 1
    assert rows["castmate"]["computed_steps"]["value"] == 3
    assert rows["fp8"]["class"] == "near-lossless"
    assert rows["castmate"]["dino_change"]["value"] == pytest.approx(0, abs=1e-3)
    assert "no trained judge" in figures["judge"]
    assert "judge_look" not in rows["castmate"]


def test_a_bundle_of_other_weights_is_refused_before_anything_is_measured(
    setup: Setup, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    checkpoint = save_network(InstantCharacter(TOON), tmp_path)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(Unfit, match=r"was not made from the weights.*demo_model\.build"):
        prepare(tmp_path / "scratch", bundle=setup.bundle, checkpoint=checkpoint)
    assert check_same(setup.bundle, Path(setup.folder)) > 35


def test_every_graph_of_a_bundle_is_timed_by_itself(setup: Setup) -> None:
    bundle = Bundle.open(setup.bundle)
    found = measured_ms(bundle, OnnxRuntime(bundle, threads=1), TOON, 512)
    assert set(found) == set(bundle.manifest.graphs)
    assert all(row["p50_ms"] > 0 for row in found.values())
