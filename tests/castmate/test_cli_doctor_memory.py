"""`castmate doctor` says what fits a GPU: the one that is here, and one that is not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from castmate.engines.bundle import Bundle
from castmate.engines.family import family_of
from castmate.engines.footprint import Counted, counted
from castmate.engines.residency import Runs
from castmate.pipeline.opening import cache_bytes
from castmate.settings import Settings
from tests.castmate.command import castmate_
from tests.gpu_double import Card, install, plan_bundle_of

pytestmark = pytest.mark.usefixtures("own_folder")
GIB = 2**30
CARDS = (16, 24, 32, 48, 80, 141)


def flux(precision: str, side: int) -> Counted:
    (found,) = [
        model
        for model in counted("instantcharacter")
        if model.precision == precision and model.side == side
    ]
    return found


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    large = {"weights": 3 * GIB}
    return plan_bundle_of(
        Bundle.open("toon"), tmp_path / "plans", text_encoder_2=large, transformer_tail=large
    ).path


@pytest.mark.slow
def test_a_bundle_of_plans_is_planned_for_the_card_that_is_here(plans: Path) -> None:
    with install(Card(size=6 * GIB)):
        result = castmate_("doctor", "--bundle", str(plans))
        assert result.exit_code == 0, result.output
    assert re.search(r"^  denoise +every step .*transformer_tail 3\.2 GB \(parked\)", result.stdout,
                     re.MULTILINE)  # fmt: skip
    assert "A picture of a known prompt and character loads nothing." in result.stdout
    assert re.search(r"A new prompt loads 6\.4 GB", result.stdout)


def test_the_same_bundle_on_a_card_that_is_not_here(plans: Path) -> None:
    result = castmate_("doctor", "--bundle", str(plans), "--gpu-memory", "16GB", "--json")
    assert result.exit_code == 0, result.output
    (plan,) = json.loads(result.stdout)
    assert plan["fits"]
    assert plan["parked"] == []
    refused = castmate_("doctor", "--bundle", str(plans), "--gpu-memory", "3GB", "--json")
    assert refused.exit_code == 1
    (plan,) = json.loads(refused.stdout)
    assert "--max-side" in plan["reason"]


def test_a_size_that_is_none_is_refused_with_what_is_allowed() -> None:
    result = castmate_("doctor", "--gpu-memory", "much")
    assert result.exit_code == 2
    assert "CASTMATE_GPU_MEMORY" in result.stderr


def test_a_model_that_nobody_has_exported_yet_is_planned_from_counted_bytes() -> None:
    result = castmate_("doctor", "--gpu-memory", "16GB")
    assert result.exit_code == 0, result.output
    titles = re.findall(r"^GPU memory: (.*)$", result.stdout, re.MULTILINE)
    assert "flux, FP8 transformer and encoders, to 1024 px (not exported)" in titles
    assert len(titles) == 2 * len({model.precision for model in counted("instantcharacter")})
    assert "--quantization int8: compute capability 8.0, 8.6" in result.stdout
    assert re.search(r"--quantization nvfp4: compute capability .*12\.0", result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gpu", "says"),
    [
        ((8, 6), "gains from --quantization int8 or int4"),
        ((12, 0), "gains from --quantization fp8 or nvfp4"),
        ((7, 5), "draws in bf16"),
    ],
)
def test_doctor_says_what_the_gpu_that_is_here_gains_from(gpu: tuple[int, int], says: str) -> None:
    with install(Card(size=6 * GIB, compute_capability=gpu)):
        checks = json.loads(castmate_("doctor", "--json").stdout)["checks"]
    (found,) = [check["found"] for check in checks if check["name"] == "gpu"]
    assert f"compute capability {gpu[0]}.{gpu[1]}" in found
    assert says in found


def test_the_record_covers_every_graph_of_the_family_s_bundle() -> None:
    table = family_of("instantcharacter").table
    for model in counted("instantcharacter"):
        assert set(model.footprints) <= set(table.graphs)
        assert {"modulation", "transformer", "vae_decoder"} <= set(model.footprints)
        assert "reported by tensorrt_rtx" in model.provenance


@pytest.mark.parametrize(
    ("memory", "side"), [(16, 1024), (24, 1536), *((card, 1536) for card in CARDS[2:])]
)
def test_flux_in_fp8_fits_and_draws_a_known_character_without_loading(
    memory: int, side: int
) -> None:
    caches = cache_bytes(Settings.load())
    plan = flux("FP8 transformer and encoders", side).plan(memory * 10**9, caches)
    assert min(map(plan.spare, plan.footprints)) >= 0
    assert plan.loads(Runs.PICTURE) == 0
    if memory >= 48:
        assert plan.parked == ()
