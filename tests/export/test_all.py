"""The whole way in one call, resumed, verified; and what is refused before it begins."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from castmate.engines.bundle import Bundle
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.engines.plan import Flavour
from export import recipe as recipe_module
from export.all import main, make, parser, recipe_of
from export.errors import ExportError, NotEnough
from export.families.instantcharacter.config import FLUX
from export.families.instantcharacter.load import load_network
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.unquantized import UNQUANTIZED
from export.lora import Style
from export.precision import Precision
from export.quantization.fp8 import FP8, FP8_ATTENTION
from export.quantization.none import NONE
from export.recipe import Recipe, sizes
from export.samples import Prompts, samples
from export.verify import Difference, VerificationError, limits_of, verify_graphs, verify_picture
from tests.export.conftest import sources


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_weights_become_a_verified_fp8_bundle_and_a_second_call_changes_nothing(
    published: Path, network: InstantCharacter, prompts: Prompts, tmp_path: Path
) -> None:
    recipe = Recipe(
        sources(published),
        precision=Precision.FP32,
        quantization=FP8,
        samples=1,
        steps=2,
        side=512,
    )
    folder = make(recipe, tmp_path, network.config)
    bundle = Bundle.open(folder)
    bundle.check()
    assert bundle.manifest.precision == "fp32, transformer fp8"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert make(recipe, tmp_path, network.config) == folder
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before
    changed = replace(recipe, steps=3, quantization=NONE)
    with pytest.raises(ExportError, match="other choices of quantization, steps"):
        make(changed, tmp_path, network.config)

    runtime = OnnxRuntime(bundle)
    loaded = load_network(recipe.sources, torch.float32, network.config)
    limits = limits_of(recipe.precision, recipe.quantization)
    found = {d.output: d for d in verify_graphs(bundle, runtime, loaded, limits)}
    assert found["text_encoder_2.prompt_embeds"].relative_l2 < 1e-4
    assert 1e-4 < found["transformer.next_latents"].relative_l2 < limits.relative_l2
    assert verify_picture(bundle, runtime, loaded, prompts, samples(1, 512)[0], 2, limits) > 20
    exact = limits_of(Precision.FP32, NONE)
    with pytest.raises(VerificationError, match=r"transformer\.next_latents: relative L2"):
        verify_graphs(bundle, runtime, loaded, exact)


def test_values_that_are_not_finite_or_of_another_shape_are_never_the_same() -> None:
    good = np.ones((2, 3), np.float32)
    assert Difference.between("x", good, good).cosine == pytest.approx(1)
    with pytest.raises(VerificationError, match="1 values are not finite"):
        Difference.between("x", np.array([1, np.nan]), np.ones(2))
    with pytest.raises(VerificationError, match=r"shape \(2, 3\), torch has \(3, 2\)"):
        Difference.between("x", good, good.T)


def test_there_are_limits_or_a_list_of_those_that_are() -> None:
    with pytest.raises(VerificationError, match="fp16 with fp8; there are fp32 with none"):
        limits_of(Precision.FP16, FP8)


def published_recipe(**changes: Any) -> Recipe:
    return replace(Recipe(sources(Path("weights"))), **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"precision": Precision.FP16}, "overflows.*bf16"),
        ({"steps": 51}, r"--steps 51: allowed are 1\.\.50"),
        ({"side": 256}, r"--side 256: allowed are 512\.\.1536"),
        ({"styles": (Style(Path("nowhere")),)}, "--style nowhere: there is no such file"),
        ({"flavour": Flavour.TENSORRT_RTX, "target": "9.0"}, "--target 9.0"),
        (
            {"flavour": Flavour.TENSORRT, "target": "9.0"},
            r"--target 9\.0 has no FP8 attention; these have: 8\.9, 10\.0.*--quantization fp8",
        ),
    ],
)
def test_a_choice_that_cannot_work_is_refused_before_anything_loads(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=says):
        make(published_recipe(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_little_memory_or_disk_for_the_full_size_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recipe_module, "available_memory", lambda: 8 * 2**30)
    with pytest.raises(NotEnough, match="GiB of host memory, 8 GiB are free"):
        published_recipe().check(FLUX, tmp_path)
    monkeypatch.setattr(recipe_module, "available_memory", lambda: 2**50)
    usage = shutil.disk_usage(tmp_path)._replace(free=2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(NotEnough, match=r"1 GiB are free on the disk.*--out"):
        published_recipe().check(FLUX, tmp_path)


def test_the_full_size_is_known_before_it_is_loaded() -> None:
    whole, denoiser, quantized = sizes(FLUX, FP8_ATTENTION, UNQUANTIZED)
    assert denoiser / 1e9 == pytest.approx(11.901 - 3.280 + 1.435, abs=2e-3)
    assert whole / 1e9 == pytest.approx(21.5, abs=0.8)
    assert quantized / 1e9 == pytest.approx(10.04, abs=0.05)


def test_flags_become_the_recipe() -> None:
    flags = ["--out", "x", "--style", "a:0.5", "--style", "b", "--step-caching"]
    more = ["--quantization", "fp8", "--side", "512"]
    found = recipe_of(parser().parse_args([*flags, *more]))
    assert found.styles == (Style(Path("a"), 0.5), Style(Path("b"), 1.0))
    assert found.quantization is FP8
    assert (found.step_caching, found.side, found.precision) == (True, 512, Precision.BF16)
    assert found.sources.flux == "black-forest-labs/FLUX.1-dev"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--style", "a:strong"], "the scale 'strong' is no number"),
        (["--steps", "99"], "--steps 99"),
    ],
)
def test_the_command_line_says_one_sentence(
    flags: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "out"), *flags]) == 1
    assert says in capsys.readouterr().err
