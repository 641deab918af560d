"""The `identity` graph: whom a picture shows, as a direction.

Two pictures of one character point the same way whatever it does and wherever it is. Nothing here
conditions the picture: an encoder that the network was trained to please would be a judge in its
own cause. Any network that turns normalised pixels into features can be behind the graph.
`IdentityNet` is a small one that trains on a CPU, which the demo model has; `DinoIdentity` is a
published one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rgb = tuple[float, float, float]


class Identity(nn.Module):
    """A network behind the graph: pixels `[B, 3, i, i]` to features `[B, e]`.

    Attributes:
        mean_std: How it wants pixels of 0 to 1 normalised.
    """

    mean_std: ClassVar[tuple[Rgb, Rgb]]


class IdentityNet(Identity):
    """Levels of convolutions, of which a coarse grid is read."""

    mean_std = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __init__(self, channels: tuple[int, ...], embedding_dim: int) -> None:
        """Make the levels, each half as fine as the one before.

        Args:
            channels: Of each level, the finest first; multiples of 8.
            embedding_dim: Features.
        """
        super().__init__()
        layers = [_convolution(3, channels[0], stride=2)]
        for fine, coarse in pairwise(channels):
            layers += [_convolution(fine, coarse, stride=2), _convolution(coarse, coarse)]
        self.body = nn.Sequential(*layers)
        self.mix = nn.Linear(channels[-1] * _GRID**2, 2 * embedding_dim)
        self.last = nn.Linear(2 * embedding_dim, embedding_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.body(pixels)
        x = F.avg_pool2d(x, x.shape[-1] // _GRID).flatten(1)
        features: Tensor = self.last(F.silu(self.mix(x)))
        return features


class IdentityGraph(nn.Module):
    """RGB pictures to features of length 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, identity: Identity) -> None:
        super().__init__()
        self.identity = identity
        for name, values in zip(("mean", "std"), identity.mean_std, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.identity(self.pixels(images))
        return F.normalize(features.float(), dim=-1)

    def pixels(self, images: Tensor) -> Tensor:
        """Pictures `[B, i, i, 3]` uint8 as the network takes them."""
        pixels = (images.float().permute(0, 3, 1, 2) / 255 - self.mean) / self.std
        return pixels.to(next(self.identity.parameters()).dtype)


_GRID = 3


def _convolution(channels: int, out: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, padding=1, stride=stride), nn.GroupNorm(4, out), nn.SiLU()
    )
