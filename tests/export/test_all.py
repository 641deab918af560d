"""What one call refuses before it begins, what it knows of the full size, and its flags."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from castmate.engines.plan import Flavour
from export import forecast as forecast_module
from export.all import main, make, parser, recipe_of
from export.errors import ExportError, NotEnough
from export.families.instantcharacter.config import FLUX
from export.families.instantcharacter.unquantized import ENCODERS, UNQUANTIZED
from export.forecast import check_room, forecast
from export.lora.fuse import Lora
from export.precision import Precision
from export.quantization.fp8 import FP8, FP8_ATTENTION
from export.quantization.registry import least_psnr_db
from export.recipe import Recipe
from export.sizes import GraphSize, graph_sizes, meta_network
from tests.export.conftest import sources


def test_there_are_limits_or_a_list_of_those_that_are() -> None:
    with pytest.raises(ExportError, match="fp16 with fp8; there are fp32 with none"):
        least_psnr_db(Precision.FP16, FP8)


def published_recipe(**changes: Any) -> Recipe:
    return replace(Recipe(sources(Path("weights"))), **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"precision": Precision.FP16}, "overflows.*bf16"),
        ({"steps": 51}, r"--steps 51: allowed are 1\.\.50"),
        ({"side": 256}, r"--side 256: allowed are 512\.\.1536"),
        ({"max_side": 1024}, "--max-side 1024 limits engines, and none are built"),
        (
            {"max_side": 2048, "flavour": Flavour.TENSORRT_RTX, "target": "8.9"},
            "--max-side 2048: the bundle draws 512 to 1536",
        ),
        ({"loras": (Lora(Path("nowhere")),)}, "--lora nowhere: there is no such file"),
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
    monkeypatch.setattr(forecast_module, "available_memory", lambda: 8 * 2**30)
    steps = forecast(published_recipe(), FLUX)
    with pytest.raises(NotEnough, match="GiB of host memory, 8 GiB are free"):
        check_room(steps, tmp_path)
    monkeypatch.setattr(forecast_module, "available_memory", lambda: 2**50)
    usage = shutil.disk_usage(tmp_path)._replace(free=2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(NotEnough, match=r"1 GiB are free on the disk.*--out"):
        check_room(steps, tmp_path)


def test_the_full_size_is_known_before_it_is_loaded() -> None:
    found = graph_sizes(meta_network(FLUX), FP8_ATTENTION, UNQUANTIZED)
    transformer = found["transformer"]
    assert transformer.weights / 1e9 == pytest.approx(11.901 - 3.283 + 1.435, abs=4e-3)
    assert sum(size.weights for size in found.values()) / 1e9 == pytest.approx(21.5, abs=0.8)
    assert transformer.quantized / 1e9 == pytest.approx(10.04, abs=0.05)
    assert found["vae_decoder"].weights / 1e6 == pytest.approx(49.55, abs=0.01)  # no encoder
    # T5 without `wo`: 24 layers of 4096 by 10240.
    t5 = found["text_encoder_2"]
    assert (t5.weights - t5.quantized) / 1e9 == pytest.approx(24 * 4096 * 10240 / 1e9, abs=0.14)
    in_bf16 = graph_sizes(meta_network(FLUX), FP8_ATTENTION, (*UNQUANTIZED, *ENCODERS))

    def gigabytes(sizes: Mapping[str, GraphSize]) -> float:
        return sum(s.num_bytes(Precision.BF16) for s in sizes.values()) / 1e9

    assert gigabytes(found) == pytest.approx(26.52, abs=0.01)
    assert gigabytes(in_bf16) == pytest.approx(32.93, abs=0.01)


def test_flags_become_the_recipe() -> None:
    flags = ["--out", "x", "--lora", "a:0.5", "--lora", "b", "--step-caching"]
    more = ["--quantization", "fp8", "--side", "512"]
    found = recipe_of(parser().parse_args([*flags, *more]))
    assert found.loras == (Lora(Path("a"), 0.5), Lora(Path("b"), 1.0))
    assert found.quantization is FP8
    assert (found.step_caching, found.side, found.precision) == (True, 512, Precision.BF16)
    assert found.sources.flux == "black-forest-labs/FLUX.1-dev"
    assert found.max_side is None
    engines = ["--flavour", "tensorrt_rtx", "--target", "8.9", "--max-side", "1024"]
    assert recipe_of(parser().parse_args(["--out", "x", *engines])).max_side == 1024


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--lora", "a:strong"], "the scale 'strong' is no number"),
        (["--lora", "a:nan"], "the scale 'nan' is no number"),
        (["--steps", "99"], "--steps 99"),
    ],
)
def test_the_command_line_says_one_sentence(
    flags: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "out"), *flags]) == 1
    assert says in capsys.readouterr().err
