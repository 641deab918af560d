"""What the export takes, said before anything is downloaded."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from castmate.engines.plan import Flavour
from export import forecast as forecast_module
from export.all import main
from export.families.instantcharacter.config import FLUX
from export.families.instantcharacter.load import Sources
from export.forecast import Step, forecast
from export.quantization.none import NONE
from export.quantization.nvfp4 import NVFP4
from export.recipe import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
GB = 10**9
RECIPE = Recipe(Sources(), flavour=Flavour.TENSORRT_RTX, target="8.9")


def steps(recipe: Recipe) -> dict[str, Step]:
    return {step.name: step for step in forecast(recipe, FLUX)}


@pytest.fixture(autouse=True)
def few_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting the full size's takes half a minute; `test_full_size.py` does it."""
    monkeypatch.setattr(forecast_module, "step_flops", lambda *arguments: 80 * 10**12)


def test_every_step_of_the_full_size_is_counted_in_bytes(tmp_path: Path) -> None:
    found = steps(RECIPE)
    golden = "record golden tensors"
    names = ["download", "load", "calibrate", golden, "export to ONNX", "build engines"]
    assert list(found) == names
    # FLUX and the adapter in bf16; SigLIP with its text half, DINOv2 and the checker in fp32.
    assert found["download"].disk / GB == pytest.approx(33.74 + 5.59 + 3.51 + 4.55 + 1.22, abs=0.01)
    assert found["export to ONNX"].disk / GB == pytest.approx(26.52, abs=0.01)
    # Of the largest graph, the transformer with 10.04 of 10.06 billion weights in FP8.
    build = found["build engines"].host / GB
    assert build == pytest.approx(2.6 * 10.07 + 2**30 / GB, abs=0.1)
    assert found["calibrate"].gpu is not None
    assert found["calibrate"].gpu / GB < 6, "any card on which the engines run"
    assert "224 steps of 80 TFLOP: not measured" in found["calibrate"].time
    assert max(step.host for step in found.values()) < 32 * GB, "a desktop of 64 GB"


def test_building_four_bits_takes_more_for_each_byte_as_was_measured() -> None:
    build = steps(replace(RECIPE, quantization=NVFP4))["build engines"].host
    assert 20.1 <= build / GB < 24, "20.1 GB for 6.0 GB of weights: build-nvfp4.json"


def test_folders_need_no_download_and_a_calibration_no_gpu(tmp_path: Path) -> None:
    given = replace(RECIPE, sources=Sources(flux=str(tmp_path)), calibration=tmp_path)
    found = steps(given)
    assert found["download"].disk / GB == pytest.approx(5.59 + 3.51 + 4.55 + 1.22, abs=0.01)
    assert "calibrate" not in found
    assert "calibrate" not in steps(replace(RECIPE, quantization=NONE))


def test_encoders_in_bf16_take_six_gigabytes_more() -> None:
    wide = steps(replace(RECIPE, quantize_encoders=False))["export to ONNX"].disk
    assert (wide - steps(RECIPE)["export to ONNX"].disk) / GB == pytest.approx(6.41, abs=0.01)


def test_the_dry_run_prints_them_and_downloads_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a dry run reaches out")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(forecast_module, "available_memory", lambda: 64 * 2**30)
    out = tmp_path / "flux"
    flags = ["--plan", "--out", str(out), "--flavour", "tensorrt_rtx", "--target", "8.9"]
    code = main(flags)
    said = capsys.readouterr()
    for words in ("download", "48.6", "26.5", "not measured", "--gpu-memory"):
        assert words in said.out
    assert not out.exists()
    assert code == ("free on the disk" in said.err), "it refuses what make would refuse"
    monkeypatch.setattr(forecast_module, "available_memory", lambda: 8 * 2**30)
    assert main(flags) == 1
    assert "GiB of host memory, 8 GiB are free" in capsys.readouterr().err
