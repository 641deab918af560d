"""A network whose builds only measure takes the memory and the time of a few of its layers."""

from __future__ import annotations

import torch
from torch import nn

from export.quantization.nvfp4 import NVFP4, NvFp4Linear
from export.quantization.quantize import quantize
from export.shallow import Once, of_ones, randomize


def layers() -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(*(nn.Linear(32, 32, dtype=torch.bfloat16) for _ in range(3)))


def test_random_weights_share_one_buffer_and_no_two_are_equal() -> None:
    made = layers()
    randomize(made)
    weights = [layer.weight for layer in made if isinstance(layer, nn.Linear)]
    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == 1
    assert not any(torch.equal(weights[0], other) for other in weights[1:])
    assert not torch.equal(weights[1], weights[2])


def test_layers_of_one_shape_are_quantized_once_and_still_differ() -> None:
    made = layers()
    randomize(made)
    ranges = of_ones(made, NVFP4, (), ("2",))
    assert quantize(made, ranges, Once(NVFP4), (), sensitive=("2",)) == ["0", "1", "2"]
    first, second = made[0], made[1]
    assert isinstance(first, NvFp4Linear)
    assert isinstance(second, NvFp4Linear)
    assert not isinstance(made[2], NvFp4Linear), "a sensitive layer is left to the wider scheme"
    assert torch.equal(second.weight, first.weight.roll(1, 0))
    assert second.block_scale.dtype == first.block_scale.dtype
    assert torch.equal(second.weight_scale, first.weight_scale)
