"""LoRAs of the demo model: a few updates of each training, and files that the exporter reads."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch

from castmate.engines.bundle import Bundle
from demo_model import adapt, looks
from demo_model.adapt import train_few_steps, train_style
from demo_model.looks import LOOKS
from demo_model.lora import Lora, trainable_layers
from demo_model.training import Budget
from demo_model.trajectories import Requests, schedule, steps_through, velocity
from demo_model.warm import BUNDLE
from export.families.instantcharacter.network import InstantCharacter
from export.lora.branches import NO_SLOTS
from export.lora.file import read
from export.lora.fuse import Lora as LoraFile
from export.lora.styles import Style, prepare
from export.samples import Prompts

TINY = (4, 4)


@pytest.fixture
def requests(network: InstantCharacter, monkeypatch: pytest.MonkeyPatch) -> Requests:
    """Two characters, small pictures."""
    monkeypatch.setattr("demo_model.trajectories.GRIDS", (TINY,))
    monkeypatch.setattr(looks, "BATCH", 1)
    monkeypatch.setattr(looks, "BATCHES", 2)
    monkeypatch.setattr(looks, "STEPS", 1)
    monkeypatch.setattr(adapt, "STYLE_STEPS", 2)
    monkeypatch.setattr(adapt, "TEACHER_STEPS", 4)
    monkeypatch.setattr(adapt, "FEW_BATCH", 2)
    return Requests(network, Prompts.of(Bundle.open(BUNDLE)), count=2)


def check_file(lora: Lora, network: InstantCharacter, path: Path) -> None:
    """The exporter takes it as a style of exactly the trained layers, at full strength."""
    lora.save(path)
    found = read(path)
    assert found.problems == ()
    assert {change.scaling for change in found.changes} == {1.0}
    prepare(network, [Style("made", LoraFile(path))])
    try:
        (slots,) = network.style_slots.values()
        assert [slot.layer for slot in slots] == trainable_layers(network)
    finally:
        network.style_slots = NO_SLOTS


def test_a_style_learns_and_its_file_is_a_style(
    network: InstantCharacter, requests: Requests, tmp_path: Path
) -> None:
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    lora = train_style(requests, "pastel", Budget(steps=2), tmp_path)
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())
    assert any(factor.any() for factor in lora.up.values())
    check_file(lora, network, tmp_path / "pastel.safetensors")


def test_few_steps_are_learnt_and_their_file_can_be_fused(
    network: InstantCharacter, requests: Requests, tmp_path: Path
) -> None:
    lora = train_few_steps(requests, 2, Budget(steps=2), tmp_path)
    assert any(factor.any() for factor in lora.up.values())
    check_file(lora, network, tmp_path / "few.safetensors")


def test_what_a_student_is_shown_is_the_teachers_own_where_nothing_is_recoloured(
    network: InstantCharacter, requests: Requests
) -> None:
    batch = requests.draw(Random(1), 2, TINY)
    same = looks.Recolouring(network.config.transformer["in_channels"])
    shown = adapt._recoloured_steps(network, batch, same)
    with torch.no_grad():
        first = velocity(network, batch, batch.noise, shown.sigma[:2])
    torch.testing.assert_close(shown.x[:2], batch.noise, rtol=0, atol=1e-4)
    torch.testing.assert_close(shown.target[:2], first, rtol=0, atol=1e-4)


def test_a_lora_that_is_not_trained_changes_nothing_and_leaves_no_trace(
    network: InstantCharacter, requests: Requests
) -> None:
    batch = requests.draw(Random(1), 1, TINY)
    sigmas = schedule(network, 2, TINY)
    plain = steps_through(network, batch, batch.noise, sigmas)
    lora = Lora(network, 4)
    with lora.applied():
        assert torch.equal(steps_through(network, batch, batch.noise, sigmas), plain)
    with torch.no_grad():
        for factor in lora.up.values():
            factor.fill_(0.01)
    with lora.applied():
        assert not torch.equal(steps_through(network, batch, batch.noise, sigmas), plain)
    assert torch.equal(steps_through(network, batch, batch.noise, sigmas), plain)


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_turns_black_and_white_into_its_own(name: str) -> None:
    look = LOOKS[name]
    for value, expected in ((-1.0, look.dark), (1.0, look.light)):
        found = (look(torch.full((1, 3, 1, 1), value)).flatten() + 1) * 127.5
        torch.testing.assert_close(found, torch.tensor(expected).float(), rtol=0, atol=1e-2)
