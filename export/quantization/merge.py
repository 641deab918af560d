"""Linear layers that read one input as one layer: fewer and larger products.

A quantized engine then rounds the input once and runs one kernel. TensorRT merges such layers by
itself in wide types, but in FP8 not on every GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Group(NamedTuple):
    """Layers that read the same input.

    Attributes:
        merged: Name of the layer that takes their place.
        parts: Their own names, in the order of its outputs.
    """

    merged: str
    parts: tuple[str, ...]

    def within(self, owner: str) -> Group:
        """The same group, named from further out."""
        return Group(f"{owner}.{self.merged}", tuple(f"{owner}.{part}" for part in self.parts))

    def outputs(self, owner: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
        """What each of the layers makes of `x`, merged or not.

        Args:
            owner: The module that the names are relative to.
            x: `[..., in]`.
        """
        if (merged := getattr(owner, self.merged, None)) is not None:
            return tuple(merged(x))
        return tuple(owner.get_submodule(part)(x) for part in self.parts)


class Merged(nn.Module):
    """Layers side by side in one product; each output is given apart."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        """Merge layers.

        Args:
            layers: All with a bias, or all without; their weights are copied.
        """
        super().__init__()
        self.sizes = [layer.out_features for layer in layers]
        first, biased = layers[0], layers[0].bias is not None
        self.linear = nn.Linear(first.in_features, sum(self.sizes), biased, device="meta")
        self.linear.weight = _side_by_side([layer.weight for layer in layers])
        if biased:
            self.linear.bias = _side_by_side([layer.bias for layer in layers])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """`[..., in]` to the output of each layer."""
        return self.linear(x).split(self.sizes, dim=-1)


def merge(module: nn.Module, group: Group) -> str:
    """Put a `Merged` in place of a group's layers.

    Args:
        module: A network, or part of one.
        group: Named from it.

    Returns:
        The name of the one linear layer in it.
    """
    layers = [module.get_submodule(part) for part in group.parts]
    merged = Merged([layer for layer in layers if isinstance(layer, nn.Linear)])
    module.set_submodule(group.merged, merged)
    for part in group.parts:
        owner, _, attribute = part.rpartition(".")
        delattr(module.get_submodule(owner), attribute)
    return f"{group.merged}.linear"


def _side_by_side(tensors: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.cat([tensor.detach() for tensor in tensors]), requires_grad=False)
