"""Calibration on a device that holds a part of the network only."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn

from export.calibrate import calibrate
from export.families.instantcharacter.network import InstantCharacter
from export.placement import Placement
from export.samples import Prompts, Sample, samples
from export.trajectory import denoise
from tests.export.conftest import make_wide


class Counting(Placement):
    """A device whose memory is counted; copies on the CPU stand for it."""

    def __init__(self, room: int = 0) -> None:
        super().__init__("cpu", room)
        self.held = self.peak = self.moves = 0

    def put(self, tensor: Tensor) -> Tensor:
        made, size = tensor.clone(), tensor.nbytes
        self.moves += 1
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(made.untyped_storage(), self._freed, size)
        return made

    def _freed(self, size: int) -> None:
        self.held -= size


@pytest.fixture(scope="module")
def network() -> InstantCharacter:
    return make_wide()


@pytest.fixture(scope="module")
def drawn() -> list[Sample]:
    return samples(1, 512)


def layers(network: nn.Module) -> list[int]:
    """Bytes of each module's own tensors."""
    return [
        sum(t.nbytes for t in (*m.parameters(recurse=False), *m.buffers(recurse=False)))
        for m in network.modules()
    ]


def test_one_layer_is_on_the_device_at_a_time_and_every_range_is_the_same(
    network: InstantCharacter, prompts: Prompts, drawn: list[Sample]
) -> None:
    before = dict(network.state_dict(keep_vars=True))
    whole = calibrate(network, prompts, drawn, steps=2)
    device = Counting()
    found = calibrate(network, prompts, drawn, steps=2, placement=device)
    assert found == whole
    assert device.held == 0
    assert 0 < device.peak <= 2 * max(layers(network)), "a layer, and the one that calls it"
    assert all(value is before[name] for name, value in network.state_dict(keep_vars=True).items())


def test_nothing_is_left_behind_where_another_device_would_miss_it(
    network: InstantCharacter, prompts: Prompts, drawn: list[Sample]
) -> None:
    # torch refuses operands on two devices, also where one of them is "meta".
    for room in (0, sum(layers(network)) // 2):
        with torch.no_grad(), Placement("meta", room).of(network):
            latents = denoise(network, drawn[0], prompts, steps=2)
            assert latents.is_meta
        assert not any(weight.is_meta for weight in network.state_dict().values())


def test_what_there_is_room_for_stays_from_step_to_step(
    network: InstantCharacter, prompts: Prompts, drawn: list[Sample]
) -> None:
    largest, steps = max(layers(network)), sum(layers(network.denoiser))
    devices = [Counting(room) for room in (0, steps // 3, steps)]
    for device in devices:
        calibrate(network, prompts, drawn, steps=2, placement=device)
        assert device.peak <= device.room + 2 * largest
        assert device.held == 0
    streamed, partly, steps_stay = (device.moves for device in devices)
    assert steps_stay < partly < streamed
    calibrate(network, prompts, drawn, steps=4, placement=(longer := Counting(steps)))
    assert longer.moves == steps_stay, "no step moves anything"
