"""Low-rank branches beside a network's layers, whose factors are an input of its graphs.

A layer that has a branch gives `W x + up (down x)`. The weights stay as they are, quantized or not,
so one graph draws in every style, and in none where the factors are zeros. The branches are hooks
that are there while a graph runs: names of layers and weights do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from export.quantization.merge import Group


@dataclass(frozen=True)
class Slot:
    """The place of a layer's factors in the input that holds those of all layers.

    Attributes:
        layer: Its name in the network.
        start: Its first row: `in_features` rows of the transposed `down`, then those of `up`.
        in_features: Width of what it reads.
        out_features: Width of what it gives.
    """

    layer: str
    start: int
    in_features: int
    out_features: int

    @property
    def middle(self) -> int:
        """The first row of `up`."""
        return self.start + self.in_features

    @property
    def end(self) -> int:
        """The row behind the last."""
        return self.middle + self.out_features

    def change(self, x: Tensor, factors: Tensor) -> Tensor:
        """What the branch adds to the layer's output."""
        down, up = factors[self.start : self.middle], factors[self.middle : self.end]
        return (x @ down) @ up.T


Slots = Mapping[str, Sequence[Slot]]
"""By the name of the input that holds their factors."""
NO_SLOTS: Final[Slots] = {}


def slots_of(layers: Iterable[tuple[str, nn.Linear]]) -> tuple[Slot, ...]:
    """Places one after the other for layers, given with their names."""
    row, found = 0, []
    for name, linear in layers:
        found.append(slot := Slot(name, row, linear.in_features, linear.out_features))
        row = slot.end
    return tuple(found)


class Branches:
    """Branches of some layers of a network, which may have been merged or quantized."""

    def __init__(
        self, network: nn.Module, slots: Iterable[Slot], groups: Iterable[Group] = ()
    ) -> None:
        """Find the layers.

        Args:
            network: What the slots name layers of.
            slots: Where the factors of each layer are.
            groups: Layers that may have become one.
        """
        merged = {part: (group, i) for group in groups for i, part in enumerate(group.parts)}
        self._branches: dict[nn.Module, list[tuple[int | None, Slot]]] = {}
        for slot in slots:
            place: int | None = None
            try:
                module = network.get_submodule(slot.layer)
            except AttributeError:
                group, place = merged[slot.layer]
                module = network.get_submodule(group.merged)
            self._branches.setdefault(module, []).append((place, slot))

    def __bool__(self) -> bool:
        """Whether any layer has one."""
        return bool(self._branches)

    @contextmanager
    def with_factors(self, factors: Tensor | None) -> Iterator[None]:
        """Let the layers add what their branches give.

        Args:
            factors: `[rows, rank]`; None for layers without branches.
        """
        handles = (
            []
            if factors is None
            else [
                module.register_forward_hook(_hook(branches, factors))
                for module, branches in self._branches.items()
            ]
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


NO_BRANCHES: Final = Branches(nn.Module(), ())


def _hook(
    branches: Sequence[tuple[int | None, Slot]], factors: Tensor
) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
    def add(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        (x,) = inputs
        if isinstance(output, torch.Tensor):
            return output + branches[0][1].change(x, factors)
        outputs = list(output)
        for place, slot in branches:
            assert place is not None
            outputs[place] = outputs[place] + slot.change(x, factors)
        return tuple(outputs)

    return add
