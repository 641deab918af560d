"""The `matte` graph: which pixels of a picture belong to its character.

Any network that turns normalised pixels into logits of the foreground can be behind it. `MatteNet`
is a small one that trains on a CPU, which the demo model has; `isnet.py` has a published one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rgb = tuple[float, float, float]


class Matte(nn.Module):
    """A network behind the graph.

    Attributes:
        mean_std: How it wants pixels of 0 to 1 normalised.
    """

    mean_std: ClassVar[tuple[Rgb, Rgb]]


class MatteNet(Matte):
    """A U-Net from pixels `[B, 3, m, m]` to logits of the foreground `[B, 1, m, m]`."""

    mean_std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def __init__(self, channels: tuple[int, ...]) -> None:
        """Make the levels, each half as fine as the one before.

        Args:
            channels: Of each level, the finest first; multiples of 4.
        """
        super().__init__()
        self.first = _convolution(3, channels[0])
        pairs = list(pairwise(channels))
        self.down = nn.ModuleList(
            nn.Sequential(_convolution(fine, coarse, stride=2), _convolution(coarse, coarse))
            for fine, coarse in pairs
        )
        self.up = nn.ModuleList(
            _convolution(coarse + fine, fine) for fine, coarse in reversed(pairs)
        )
        self.last = nn.Conv2d(channels[0], 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        levels = [self.first(pixels)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up in self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = up(torch.cat([x, levels.pop()], dim=1))
        logits: Tensor = self.last(x)
        return logits


class MatteGraph(nn.Module):
    """RGB pictures to the alpha of their characters, 0 to 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, matte: Matte) -> None:
        super().__init__()
        self.matte = matte
        for name, values in zip(("mean", "std"), matte.mean_std, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.matte(self.pixels(images))
        return logits.float().sigmoid().squeeze(1)

    def pixels(self, images: Tensor) -> Tensor:
        """Pictures `[B, m, m, 3]` uint8 as the network takes them."""
        pixels = (images.float().permute(0, 3, 1, 2) / 255 - self.mean) / self.std
        return pixels.to(next(self.matte.parameters()).dtype)


def _convolution(channels: int, out: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, padding=1, stride=stride), nn.GroupNorm(4, out), nn.SiLU()
    )
