"""Between the steps of `export.all`: ranges that are there already, memory that is given back."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from castmate.engines.bundle import Bundle
from castmate.engines.manifest import MANIFEST
from castmate.engines.plan import Flavour
from export import all as all_step
from export.all import make, parser, recipe_of
from export.build import Options
from export.calibrate import Calibration, calibrate
from export.errors import ExportError
from export.families.instantcharacter.network import InstantCharacter
from export.family import published as published_family
from export.precision import Precision, QuantizedLayer
from export.quantization.fp8 import FP8
from export.quantization.quantize import CalibrationError
from export.recipe import Recipe
from export.samples import Prompts, samples
from export.targets import found_target
from tests.export.conftest import MICRO, sources

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The networks that came as far as being written, which takes minutes and is left out."""
    found: list[nn.Module] = []

    def write(network: nn.Module, folder: Path, **options: Any) -> None:
        assert options["description"] == published_family().description, "no preset has another"
        assert options["loras"] == []
        found.append(network)
        folder.mkdir()
        (folder / MANIFEST).write_text("{}")

    monkeypatch.setattr(all_step, "write_bundle", write)
    monkeypatch.setattr(all_step, "check_room", lambda steps, folder: None)
    return found


@pytest.fixture
def recipe(published: Path) -> Recipe:
    return Recipe(sources(published), Precision.FP32, FP8, samples=1, steps=1, side=512)


@pytest.fixture(scope="module")
def shipped(published: Path, tmp_path_factory: pytest.TempPathFactory, prompts: Prompts) -> Path:
    """What somebody recorded on the published weights."""
    loaded = published_family().load_network(sources(published), torch.float32, MICRO)
    path = tmp_path_factory.mktemp("shipped") / "calibration.json"
    calibrate(loaded, prompts, samples(1, 512), steps=1).save(path)
    return path


def ship(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = replace(published_family(), calibration=path)
    monkeypatch.setattr(all_step, "published", lambda name: family)


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    def calibrate(*arguments: Any, **options: Any) -> Calibration:
        raise AssertionError("it calibrates although there are ranges")

    monkeypatch.setattr(all_step, "calibrate", calibrate)


def quantized(network: nn.Module) -> set[str]:
    layers = {n for n, layer in network.named_modules() if isinstance(layer, QuantizedLayer)}
    return {name.partition(".")[0] for name in layers}


def test_shipped_ranges_of_these_weights_are_used_and_no_gpu_is_needed(
    recipe: Recipe,
    network: InstantCharacter,
    written: list[nn.Module],
    shipped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ship(shipped, monkeypatch)
    refuse(monkeypatch)
    make(recipe, tmp_path / "all", network.config)
    assert not (tmp_path / "all/calibration.json").exists()
    make(replace(recipe, quantize_encoders=False), tmp_path / "transformer", network.config)
    transformer = {"transformer", "subject_attention"}
    encoders = {"text_encoder_2", "image_encoder", "image_encoder_2", "subject_projector"}
    assert [quantized(made) for made in written] == [transformer | encoders, transformer]


def test_shipped_ranges_of_other_weights_are_passed_over_and_named_ones_refused(
    recipe: Recipe,
    network: InstantCharacter,
    written: list[nn.Module],
    shipped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other.json"
    other.write_text(shipped.read_text().replace('"weights": "', '"weights": "0'))
    ship(other, monkeypatch)
    make(recipe, tmp_path / "out", network.config)
    said = capsys.readouterr().err
    assert "recorded on other weights of 'micro'" in said
    assert "These weights are calibrated now." in said
    assert (tmp_path / "out/calibration.json").exists()
    with pytest.raises(CalibrationError, match="on other weights"):
        make(replace(recipe, calibration=other), tmp_path / "named", network.config)
    with pytest.raises(ExportError, match=r"--calibration .*nowhere: there is no such file"):
        make(replace(recipe, calibration=Path("nowhere")), tmp_path / "x", network.config)


def test_nothing_of_the_network_is_left_when_the_builder_starts(
    recipe: Recipe,
    network: InstantCharacter,
    shipped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx_cu13 is not installed")
    ship(shipped, monkeypatch)
    monkeypatch.setattr(all_step, "check_room", lambda steps, folder: None)
    left: list[weakref.ref[Any]] = []
    built: list[Options] = []

    def write(network: nn.Module, folder: Path, **options: Any) -> None:
        left.extend(map(weakref.ref, [network, *network.parameters(), *network.buffers()]))
        folder.mkdir()
        (folder / MANIFEST).write_text("{}")

    def build(source: object, folder: Path, options: Options) -> None:
        assert left
        assert [found for found in left if found() is not None] == []
        built.append(options)

    monkeypatch.setattr(all_step, "write_bundle", write)
    monkeypatch.setattr(all_step, "build_bundle", build)
    monkeypatch.setattr(Bundle, "open", lambda folder: folder)
    narrow = replace(
        recipe,
        precision=Precision.BF16,
        flavour=Flavour.TENSORRT_RTX,
        target="8.9",
        max_side=1024,
    )
    make(narrow, tmp_path / "out", network.config, allow_fallback=True)
    assert built == [Options(Flavour.TENSORRT_RTX, "8.9", max_side=1024, allow_fallback=True)]


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\n{says}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_target_is_found_out_or_the_way_to_give_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, monkeypatch, "printf '8.9\\n8.9\\n'")
    assert found_target() == "8.9"
    flags = ["--out", "x", "--flavour", "tensorrt_rtx"]
    assert recipe_of(parser().parse_args(flags)).target == "8.9"
    assert recipe_of(parser().parse_args([*flags, "--target", "12.0"])).target == "12.0"
    nvidia_smi(tmp_path, monkeypatch, "printf '8.9\\n12.0\\n'")
    with pytest.raises(ExportError, match=r"several kinds \(12\.0, 8\.9\).*--target"):
        found_target()
    nvidia_smi(tmp_path, monkeypatch, "echo 'driver not loaded'; exit 9")
    with pytest.raises(ExportError, match=r"no NVIDIA GPU: .*--target, such as 8\.9"):
        recipe_of(parser().parse_args(flags))
    assert recipe_of(parser().parse_args(["--out", "x"])).target == "", "ONNX is for no GPU"
