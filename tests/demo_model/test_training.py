"""A tiny run of every stage, in the order of `demo_model.train`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from castmate.families.instantcharacter.constants import SchedulerSpec
from castmate.families.instantcharacter.schedule import flow_match_sigmas
from demo_model import autoencoder, data, flow, identity, judge, matte, pretrain, repair, safety
from demo_model.assembly import assemble
from demo_model.autoencoder import encode_half, new_autoencoder
from demo_model.characters import training_characters
from demo_model.checkpoint import load_network, save_network
from demo_model.config import MAX_SEQUENCE_LENGTH, TOON
from demo_model.draw import PictureSpec
from demo_model.optimizers import Muon
from demo_model.poses import Pose
from demo_model.sample import sample
from demo_model.scenes import Scene
from demo_model.subjects import crops
from demo_model.tokens import build_tokenizer
from demo_model.train import STAGES
from demo_model.training import Budget, Loop
from demo_model.warm import warm_network
from export.families.instantcharacter.network import rotary_embedding

TINY = (128, 128)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of 128 pixels, batches of two."""
    monkeypatch.setattr(autoencoder, "SIZES", ((TINY[0], False, 2, 1.0),))
    monkeypatch.setattr(data, "PICTURES", {TINY: 2})
    monkeypatch.setattr(data, "SHARD", 2)
    monkeypatch.setattr(data, "OTHER_SHARDS", 0)
    monkeypatch.setattr(data, "NUM_CHARACTERS", 2)
    monkeypatch.setattr(flow, "MAIN_BATCH", 2)
    for module in (data, flow):
        monkeypatch.setattr(module, "MAIN_SIZE", TINY)
    monkeypatch.setattr(identity, "PAIRS", 1)
    monkeypatch.setattr(repair, "GRIDS", (((2, 2), 1),))
    monkeypatch.setattr(repair, "CUT", 2)
    monkeypatch.setattr(repair, "CHARACTERS", 1)
    for module in (judge, matte, pretrain, safety):
        monkeypatch.setattr(module, "BATCH", 2)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_every_stage_trains_and_the_result_is_read_back_whole(tmp_path: Path) -> None:
    for stage in STAGES.values():
        stage.run(Budget(steps=1), tmp_path)
        assert (tmp_path / stage.result).exists()
    trained = assemble(tmp_path)
    network = load_network(save_network(trained, tmp_path))
    assert network.vae.config["scaling_factor"] != 1.0
    weights, found = trained.state_dict(), network.state_dict()
    assert all(torch.equal(weights[name], found[name]) for name in weights)
    looked_at = sample(
        network,
        build_tokenizer(),
        Image.new("RGB", (64, 64)),
        "a cat",
        width=128,
        height=64,
        steps=1,
    )
    assert looked_at.size == (128, 64)
    untrained = warm_network().state_dict()
    assert not torch.equal(
        *(state["transformer.proj_out.weight"] for state in (weights, untrained))
    )


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_the_flow_runs_compiled_at_the_most_frequent_sizes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Size] = []

    def compiled(
        predict: Callable[..., torch.Tensor], *, dynamic: bool
    ) -> Callable[..., torch.Tensor]:
        assert not dynamic

        def run(x: torch.Tensor, *others: Any) -> torch.Tensor:
            seen.append(x.shape)
            return predict(x, *others)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(flow, "COMPILED", (TINY,))
    monkeypatch.setattr(data, "PICTURES", {TINY: 2, (256, 128): 2})
    for stage in ("latents", "features"):
        STAGES[stage].run(Budget(), tmp_path)
    flow.train_flow(Budget(steps=8, compiled=True), tmp_path)
    assert 0 < len(seen) < 8
    assert {shape[1] for shape in seen} == {TINY[0] * TINY[1] // flow.PX_PER_TOKEN**2}


@pytest.mark.usefixtures("tiny")
def test_an_interrupted_stage_resumes_and_ends_where_an_uninterrupted_one_ends(
    tmp_path: Path,
) -> None:
    def train(folder: Path, *budgets: int) -> dict[str, torch.Tensor]:
        folder.mkdir()
        for steps in budgets:
            model = torch.nn.Linear(16, 16)
            torch.nn.init.eye_(model.weight)
            torch.nn.init.zeros_(model.bias)
            weight, bias = model.parameters()
            optimizers = [Muon([weight], 0.01), torch.optim.AdamW([bias], 0.01)]
            loop = Loop("tiny", model, optimizers, Budget(steps=4), folder, decay_from=1.0)
            for tick in loop:
                loop.update((model(torch.randn(2, 16)) - 1).square().mean())
                if tick.step + 1 == steps:
                    loop.save()
                    break
        state: dict[str, torch.Tensor] = torch.load(folder / "tiny.ckpt", weights_only=True)[
            "model"
        ]
        return state

    whole, halves = train(tmp_path / "a", 4), train(tmp_path / "b", 2, 4)
    assert all(torch.equal(whole[key], halves[key]) for key in whole)


def test_a_new_autoencoder_encodes_a_picture_like_half_of_it() -> None:
    vae = new_autoencoder()
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        whole = vae.encode(picture).latent_dist.mode()
        half, _ = encode_half(vae, torch.nn.functional.avg_pool2d(picture, 2))
    assert torch.allclose(whole, half, atol=1e-4)


def test_crops_are_the_whole_view_and_four_quarters() -> None:
    image = Image.new("RGB", (100, 200), (255, 0, 0))
    views = crops(image)
    assert views.shape == (5, 128, 128, 3)
    assert views[0, 64, 2].tolist() == [255, 255, 255]  # beside the picture: white
    assert views[1, 64, 127].tolist() == [255, 0, 0]


def test_training_shifts_the_noise_as_the_served_schedule_does() -> None:
    spec = SchedulerSpec(**TOON.scheduler)
    for tokens in (64, 256, 576):
        half = float(flow_match_sigmas(2, tokens, spec)[1])  # the shifted image of 0.5
        assert flow.shift(tokens) == pytest.approx(math.log(half / (1 - half)), abs=1e-5)


def test_a_figure_has_the_same_coordinates_at_every_size() -> None:
    def row(tables: tuple[torch.Tensor, torch.Tensor], token: int) -> torch.Tensor:
        return torch.cat(tables, dim=1)[MAX_SEQUENCE_LENGTH + token]

    axes = TOON.transformer["axes_dims_rope"]
    small, flux = flow.rotary(8, 8), rotary_embedding(axes, MAX_SEQUENCE_LENGTH, 8, 8)
    assert torch.allclose(torch.cat(small, 1), torch.cat(flux, 1), atol=1e-6)
    wide = flow.rotary(8, 24)
    assert torch.allclose(row(wide, 3 * 24 + 8 + 5), row(small, 3 * 8 + 5), atol=1e-6)
    large = flow.rotary(24, 24)
    assert torch.allclose(row(large, 10 * 24 + 16), row(small, 3 * 8 + 5), atol=1e-6)


def test_pictures_of_every_allowed_size_are_trained_and_none_twice() -> None:
    shards = data.shards()
    numbers = [(s.size, n) for s in shards for n in range(s.first, s.first + s.count)]
    assert len(numbers) == len(set(numbers))
    sides = Counter(side for shard in shards for side in shard.size)
    assert set(data.SIDES) <= set(sides)
    assert shards == data.shards()  # a later run finds what an earlier one cached


def test_nearly_half_of_the_pictures_show_a_pose_in_a_place_and_nothing_else() -> None:
    characters = training_characters(3)
    pictures = [data.training_picture((512, 512), i, characters) for i in range(400)]
    simple = [p for p in pictures if p == PictureSpec(p.character, p.pose, p.scene, seed=p.seed)]
    assert 0.4 < len(simple) / len(pictures) < 0.55
    assert {p.pose for p in simple} == set(Pose)
    assert {p.scene for p in simple} == set(Scene)


def test_batches_of_every_size_are_about_equal_work() -> None:
    for size in {shard.size for shard in data.shards()}:
        work = flow.batch_size(size) * (flow.num_tokens(size) + MAX_SEQUENCE_LENGTH)
        main = flow.MAIN_BATCH * (flow.num_tokens(data.MAIN_SIZE) + MAX_SEQUENCE_LENGTH)
        assert work == pytest.approx(main, rel=0.1)
