"""A model says itself how many steps it takes and how strongly it is guided, to every door."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castmate.clients import registry
from castmate.clients.local_check import check
from castmate.clients.wavespeed.parameters import HostedModel
from castmate.defaults import CompleteRequest, Defaults
from castmate.engines.bundle import Bundle, locate
from castmate.engines.manifest import MANIFEST
from castmate.engines.onnxruntime import OnnxRuntime
from castmate.errors import BundleCorrupt
from castmate.images import Reference
from castmate.jobs.predictions import hash_of
from castmate.pipeline.pipeline import Pipeline
from castmate.router import Router
from castmate.schema import Cache, GenerateRequest, GenerateResult
from castmate.settings import Settings
from castmate.triton import wire
from tests.castmate.command import castmate_
from tests.doubles import DEFAULTS

FEW: dict[str, Any] = {
    "num_inference_steps": 3,
    "guidance_scale": 2.5,
    "subject_scale": 0.9,
    "true_cfg_scale": 2.0,
}
ASKED = {"prompt": "waving on the beach", "image": "-", "size": "512*512", "seed": 7}
LEFT_OUT = GenerateRequest.parse(ASKED)


def edited(folder: Path, **changes: Any) -> Path:
    """The shipped model with another manifest."""
    shutil.copytree(locate("toon"), folder, copy_function=os.link)
    values = json.loads((folder / MANIFEST).read_text()) | changes
    (folder / MANIFEST).unlink()  # it is the shipped one
    (folder / MANIFEST).write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of few steps."""
    caching = {"balanced": 0.5, "fast": 0.9, "chosen_on": "nothing", "by_default": False}
    limits = {
        "num_inference_steps": {"min": 2, "max": 4},
        "guidance_scale": {"min": 0, "max": 5},
    }
    folder = tmp_path_factory.mktemp("few") / "bundle"
    return edited(folder, defaults=FEW, limits=limits, step_caching=caching)


@pytest.fixture(scope="module")
def pipeline(few: Path) -> Pipeline:
    bundle = Bundle.open(few)
    return Pipeline(bundle, OnnxRuntime(bundle), cache=Cache.FAST)


Draw = Callable[..., GenerateResult]


@pytest.fixture
def draw(pipeline: Pipeline, character: Callable[[str], Reference]) -> Draw:
    def drawn(**values: Any) -> GenerateResult:
        request = GenerateRequest.parse(ASKED | values)
        return pipeline.generate(request, character("mira"), lambda *_: None)

    return drawn


@pytest.mark.slow
def test_what_a_request_leaves_out_is_the_bundles_and_the_result_says_it(draw: Draw) -> None:
    by_itself, named = draw(), draw(**FEW)
    assert by_itself.images == named.images
    assert by_itself.drawn_with == named.drawn_with == FEW
    assert by_itself.warnings == ()
    other = draw(subject_scale=0.2)
    assert other.images != by_itself.images
    assert other.drawn_with == FEW | {"subject_scale": 0.2}


def test_a_request_far_from_what_the_bundle_was_made_for_is_drawn_with_a_warning(
    draw: Draw,
) -> None:
    assert draw(num_inference_steps=4).warnings == ()
    result = draw(num_inference_steps=6)
    assert result.drawn_with["num_inference_steps"] == 6
    assert result.warnings == (
        "num_inference_steps 6 is far from what 'toon' was made for (2 to 4, by default 3); expect "
        "a worse picture, or leave it out.",
    )


@pytest.mark.slow
def test_a_bundle_of_few_steps_skips_none_unless_a_request_wants_it(draw: Draw) -> None:
    assert draw().computed_steps == 3
    assert draw(cache="auto").images == draw(cache="off").images
    assert (draw(cache="fast", num_inference_steps=4).computed_steps or 0) < 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"defaults": {**FEW, "num_inference_steps": 0}}, "`defaults.num_inference_steps`"),
        ({"defaults": {"guidance_scale": 3}}, "`defaults.num_inference_steps`: Field required"),
        ({"limits": {"seed": {"min": 0, "max": 1}}}, "no limits of 'seed'; allowed are num_inf"),
        ({"limits": {"subject_scale": {"min": 1, "max": 2}}}, "0.8 is the default and outside"),
    ],
)
def test_a_manifest_whose_defaults_make_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(BundleCorrupt) as caught:
        Bundle.open(edited(tmp_path / "bundle", **changes))
    assert says in str(caught.value)


@pytest.mark.anyio
async def test_the_doors_say_the_defaults_of_the_client_that_is_asked_first(few: Path) -> None:
    def known(**settings: Any) -> Defaults | None:
        loaded = Settings.load(**settings)
        router = Router.of(loaded)
        assert router.defaults == registry.defaults(loaded)
        assert router.status()[0].defaults == router.defaults
        return router.defaults

    assert known(clients="local", bundle=str(few)) == Defaults(**FEW)
    assert known(clients="local") == DEFAULTS
    assert known(clients="local", bundle="nowhere") is None
    elsewhere = {"clients": "triton,local", "triton_urls": "127.0.0.1:1"}
    assert known(**elsewhere) is None
    assert known(clients="wavespeed", wavespeed_api_key="key") == DEFAULTS


def test_the_help_says_what_the_model_takes(
    few: Path, monkeypatch: pytest.MonkeyPatch, own_folder: Path
) -> None:
    def said() -> str:
        return " ".join(castmate_("generate", "--help").output.split())

    monkeypatch.setenv("CASTMATE_BUNDLE", str(few))
    assert "from 1 to 50) [default: 3]" in said()
    monkeypatch.setenv("CASTMATE_BUNDLE", "nowhere")
    assert "from 1 to 50) [default: (the model's)]" in said()


@pytest.mark.anyio
async def test_doctor_says_what_the_model_takes(few: Path, own_folder: Path) -> None:
    (found, *_) = await check(Settings.load(bundle=str(few)))
    assert found.found.endswith(
        "; by default num_inference_steps 3, guidance_scale 2.5, subject_scale 0.9, "
        "true_cfg_scale 2; styles: night-ink"
    )


def test_a_request_stays_as_it_was_asked_whatever_will_draw_it() -> None:
    named = GenerateRequest.parse(ASKED | DEFAULTS.model_dump())
    assert hash_of(LEFT_OUT) == hash_of(GenerateRequest.parse(ASKED | dict.fromkeys(FEW)))
    assert hash_of(LEFT_OUT) != hash_of(named)
    assert CompleteRequest.of(LEFT_OUT, DEFAULTS).model_dump() == named.model_dump()
    assert CompleteRequest.of(named, Defaults(**FEW)).model_dump() == named.model_dump()
    sent = wire.encode_parameters(LEFT_OUT)
    assert not {*FEW} & {*sent}


def test_the_hosted_model_keeps_its_own() -> None:
    model = HostedModel.from_schema(
        {"properties": {key: {} for key in ("prompt", "image", "seed", "num_inference_steps")}}
    )
    assert model.inputs(LEFT_OUT, "url")["num_inference_steps"] == 28
    assert model.drawn_with(LEFT_OUT) == {"num_inference_steps": 28}
    assert [*model.warnings(LEFT_OUT)] == []
    asked = GenerateRequest.parse(ASKED | FEW)
    assert model.drawn_with(asked) == {"num_inference_steps": 3}
    assert [warning.split(":")[0].rpartition(" ")[2] for warning in model.warnings(asked)] == [
        "guidance_scale",
        "subject_scale",
        "true_cfg_scale",
    ]
