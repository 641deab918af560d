"""Few-step versions of a model: what each sets, on what terms, and what does not go together."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel

from castmate.defaults import Defaults
from castmate.families.instantcharacter.constants import SchedulerSpec
from castmate.families.instantcharacter.schedule import flow_match_sigmas
from export.all import main, parser, recipe_of
from export.errors import ExportError
from export.families.instantcharacter.config import FLUX
from export.families.instantcharacter.load import Sources, load_network
from export.families.instantcharacter.lora_layers import lora_layers
from export.families.instantcharacter.network import InstantCharacter, rotary_embedding
from export.family import published
from export.presets.preset import Preset, names
from export.recipe import Recipe
from tests.export.conftest import MICRO, PRESET, preset_file, sources


def chosen(*flags: str) -> Recipe:
    return recipe_of(parser().parse_args(["--out", "x", *flags]))


@pytest.mark.parametrize(
    ("name", "steps", "guidance", "lora"),
    [
        ("hyper-8", 8, 3.5, ("ByteDance/Hyper-SD", 0.125)),
        ("hyper-16", 16, 3.5, ("ByteDance/Hyper-SD", 0.125)),
        ("turbo-8", 8, 3.5, ("alimama-creative/FLUX.1-Turbo-Alpha", 1.0)),
        ("schnell-4", 4, 0.0, None),
    ],
)
def test_a_shipped_preset_sets_steps_guidance_and_lora(
    name: str, steps: int, guidance: float, lora: tuple[str, float] | None
) -> None:
    recipe = chosen("--steps-preset", name)
    preset, defaults = recipe.preset, recipe.defaults
    assert preset is not None
    assert (recipe.steps, defaults.num_inference_steps) == (steps, steps)
    assert (defaults.guidance_scale, defaults.subject_scale) == (guidance, 0.8)
    found = preset.lora and (preset.lora.repository, preset.lora.scale)
    assert found == lora
    assert preset.configured(FLUX).name == f"flux-{name}"


def test_four_presets_are_shipped_and_none_is_the_default() -> None:
    assert names() == ["hyper-16", "hyper-8", "schnell-4", "turbo-8"]
    assert chosen().preset is None
    assert chosen().steps == 28


def test_the_terms_of_what_a_preset_adds_are_recorded() -> None:
    licences = published().licences(Sources())
    for name in ("hyper-8", "hyper-16", "turbo-8"):
        terms = Preset.read(name).licensed(licences)
        (part,) = set(terms) - set(licences)
        assert terms[part].allows == terms["FLUX.1-dev"].allows == "Non-commercial use only."
    terms = Preset.read("schnell-4").licensed(licences)
    assert terms["FLUX.1-schnell"].name == "Apache-2.0"
    assert "FLUX.1-dev" not in terms
    assert terms["InstantCharacter"] == licences["InstantCharacter"]  # the adapter's terms stay


def test_schnell_is_another_base_with_a_schedule_that_is_not_shifted() -> None:
    recipe = chosen("--steps-preset", "schnell-4")
    assert recipe.sources.flux == "black-forest-labs/FLUX.1-schnell"
    assert chosen("--steps-preset", "schnell-4", "--flux", "here").sources.flux == "here"
    assert recipe.preset is not None
    config = recipe.preset.configured(FLUX)
    assert config.max_sequence_length == 256
    sigmas = flow_match_sigmas(4, 4096, SchedulerSpec(**config.scheduler))
    np.testing.assert_allclose(sigmas, [1, 0.75, 0.5, 0.25, 0], atol=1e-7)
    assert "guidance_in.in_layer" not in lora_layers(
        InstantCharacter(replace(MICRO, has_guidance=False))
    )


@pytest.fixture
def schnell(published: Path, tmp_path: Path) -> Path:
    """The published network on a base without a guidance embedder."""
    torch.manual_seed(3)
    base = FluxTransformer2DModel(**{**MICRO.transformer, "guidance_embeds": False})
    folder = tmp_path / "schnell"
    shutil.copytree(published, folder)
    shutil.rmtree(folder / "flux/transformer")
    base.save_pretrained(folder / "flux/transformer")
    return folder


def test_a_base_without_guidance_is_the_same_network_at_any_guidance(schnell: Path) -> None:
    config = replace(MICRO, has_guidance=False)
    network = load_network(sources(schnell), torch.float32, config)
    base = FluxTransformer2DModel.from_pretrained(schnell / "flux/transformer").eval()
    made = torch.Generator().manual_seed(1)
    latents, text, pooled = (
        torch.randn(shape, generator=made)
        for shape in (
            (1, 24, MICRO.transformer["in_channels"]),
            (1, 40, MICRO.transformer["joint_attention_dim"]),
            (1, MICRO.transformer["pooled_projection_dim"]),
        )
    )
    cos, sin = rotary_embedding((4, 14, 14), 40, 4, 6)
    ids = torch.zeros(24, 3)
    ids[:, 1], ids[:, 2] = torch.arange(24) // 6, torch.arange(24) % 6
    with torch.no_grad():
        expected = base(
            hidden_states=latents,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=torch.tensor([0.7]),
            img_ids=ids,
            txt_ids=torch.zeros(40, 3),
        ).sample
        found = [
            network.denoiser(
                latents,
                text,
                network.modulation(pooled, torch.tensor([guidance]), torch.tensor([700.0])),
                cos,
                sin,
            )
            for guidance in (0.0, 3.5)
        ]
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


def test_a_base_of_another_kind_is_refused(schnell: Path, published: Path) -> None:
    with pytest.raises(ExportError, match=r"has no guidance embedder.* for a base with one"):
        load_network(sources(schnell), torch.float32, MICRO)
    config = replace(MICRO, has_guidance=False)
    with pytest.raises(ExportError, match=r"has a guidance embedder.* for a base with none"):
        load_network(sources(published), torch.float32, config)


def used(path: str, folder: Path) -> Defaults:
    """Everything that is asked of a preset before something is loaded."""
    preset = Preset.read(path)
    preset.configured(FLUX)
    preset.loras()
    return Recipe(sources(folder), preset=preset).defaults


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"defaults": {"steps": 2}}, "`defaults.steps`: Extra inputs are not permitted"),
        ({"defaults": {"num_inference_steps": 99}}, "less than or equal to 50"),
        ({"defaults": {"num_inference_steps": 9}}, "9 is the default and outside 1..4"),
        ({"limits": {"seed": {"min": 1, "max": 4}}}, "there are no limits of 'seed'"),
        ({"network": {"depth": 3}}, "there is no 'depth' in name, transformer"),
        ({"network": {"scheduler": {"shift": 3}}}, "there is no 'shift' in scheduler, which has"),
        ({"speed": 3}, "`speed`: Extra inputs are not permitted"),
        ({"lora": {"file": "nowhere.safetensors", "scale": 1}}, "nowhere.safetensors does not"),
        ({"limits": {"guidance_scale": {"min": 5, "max": 4}}}, "min 5 is above max 4"),
    ],
)
def test_a_preset_that_makes_no_sense_is_refused_with_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    (tmp_path / PRESET["lora"]["file"]).touch()
    path = preset_file(tmp_path, **changes)
    with pytest.raises(ExportError, match=r"--steps-preset") as caught:
        used(path, tmp_path)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--steps-preset", "hyper-4"], "allowed are hyper-16, hyper-8, schnell-4, turbo-8, or a"),
        (["--steps-preset", "hyper-8", "--steps", "28"], "--steps-preset hyper-8 draws in 8"),
        (["--steps-preset", __file__], "cannot be read"),
    ],
)
def test_the_command_says_in_one_sentence_what_does_not_go_together(
    flags: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "out"), *flags]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
