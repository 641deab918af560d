"""The programs as `make bench` runs them, on the shipped demo model and at their shortest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.latency import measure as measure_latency
from benchmarks.protocol import Setup
from benchmarks.quality import measure as measure_quality
from benchmarks.record import read_all
from benchmarks.report import page
from benchmarks.roofline import measured_ms
from benchmarks.side_by_side import measure as measure_side_by_side
from benchmarks.workload import Workload
from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from demo_model.config import TOON
from export.environment import write_result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup("toon", str(tmp_path), threads=1)


def test_contenders_are_measured_side_by_side_and_absent_ones_say_why(
    setup: Setup, tmp_path: Path
) -> None:
    names = ("castmate", "castmate-fast", "torch-eager", "tensorrt", "torch-compile-fp8")
    workload = Workload(Path(setup.folder), "512*512", 2)
    figures = json.loads(json.dumps(measure_latency(setup, workload, names, 2)))
    rows: dict[str, dict[str, Any]] = figures["contenders"]
    assert list(rows) == list(names)
    assert "--plans" in rows["tensorrt"]["reason"]
    if not torch.cuda.is_available():
        assert "8.9 or newer" in rows["torch-compile-fp8"]["reason"]
    own = rows["castmate"]
    assert own["heavy_modules_loaded"] == []
    assert rows["torch-eager"]["heavy_modules_loaded"] == ["diffusers", "torch", "transformers"]
    assert {phase: row["runs"] for phase, row in own["phases"].items()} == {
        "new character": 2,
        "new prompt": 2,
        "again": 2,
    }
    assert all(row["p50_ms"] > 0 for row in own["phases"].values())
    assert {"text", "subject", "denoise", "decode", "total"} <= own["stages_p50_ms"].keys()
    assert own["stages_p50_ms"]["total"] >= own["stages_p50_ms"]["denoise"] > 0
    assert own["computed_steps"] == 2
    assert set(figures["ratios_to_castmate"]) == {"castmate-fast", "torch-eager"}
    result = {"request": {"size": "512*512", "num_inference_steps": 2}, "network": "toon"}
    write_result(tmp_path / "latency.json", "latency", result | figures | {"start": {}})
    assert "torch-eager" in page(read_all(tmp_path))


def test_quality_compares_every_way_with_torch_and_with_controls(setup: Setup) -> None:
    figures = measure_quality(
        setup.bundle,
        Path(setup.folder),
        count=2,
        side=512,
        steps=3,
        thresholds=(9.0,),
        few_steps=(2,),
        scales=(0.5,),
    )
    rows = json.loads(json.dumps(figures))["rows"]
    assert rows["torch fp32"]["psnr_db"]["value"] == 100
    assert rows["castmate"]["psnr_db"]["value"] > 40
    assert rows["other kernels (control)"]["psnr_db"]["value"] > 40
    assert rows["another seed (control)"]["psnr_db"]["value"] < 40
    assert rows["threshold 9.0"]["computed_steps"]["value"] == 1
    assert rows["castmate"]["computed_steps"]["value"] == 3
    assert rows["2 steps"]["computed_steps"]["value"] == 2
    assert rows["2 steps"]["class"] == "few steps"
    assert rows["2 steps, subject_scale 0.5"]["subject_scale"] == 0.5
    assert rows["2 steps, subject_scale 0.5"]["ssim"] != rows["2 steps"]["ssim"]
    assert rows["fp8, encoders kept"]["class"] == "near-lossless"
    assert rows["castmate"]["dino_change"]["value"] == pytest.approx(0, abs=1e-3)
    assert rows["castmate"]["judge_look"]["value"] > 0.5
    assert rows["castmate"]["judge_look_change"]["value"] == 0


def test_every_graph_of_a_bundle_is_timed_by_itself(setup: Setup) -> None:
    bundle = Bundle.open(setup.bundle)
    found = measured_ms(bundle, OnnxRuntime(bundle, threads=1), TOON, 512)
    assert set(found) == set(bundle.manifest.graphs)
    assert all(row["p50_ms"] > 0 for row in found.values())


def test_two_bundles_take_turns_and_the_ratio_lies_within_its_interval() -> None:
    toon = Bundle.open("toon").path
    found = measure_side_by_side(toon, toon, side=512, rounds=20)
    assert 0 < found["ratio_low"] <= found["ratio"] <= found["ratio_high"]
    assert found["before_ms"] > 0
