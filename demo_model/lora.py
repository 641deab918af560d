"""A LoRA of the demo model: trainable factors beside frozen layers, and their file.

The file has the layout of diffusers and PEFT, so it goes through `export.all --style` or `--lora`
like any other LoRA.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from export.families.instantcharacter.network import InstantCharacter
from export.lora.file import METADATA

PARTS: Final = ("transformer_blocks", "single_transformer_blocks")
_HOISTED: Final = ("norm", "norm1", "norm1_context")


def trainable_layers(network: InstantCharacter) -> list[str]:
    """The linear layers of every block, except those of its modulations.

    Most LoRAs for FLUX train these.
    """
    return [
        f"transformer.{name}"
        for name, layer in network.transformer.named_modules()
        if isinstance(layer, nn.Linear)
        and name.split(".")[0] in PARTS
        and name.split(".")[2] not in _HOISTED
    ]


class Lora(nn.Module):
    """The factors of some layers of a network; untrained, they change nothing."""

    def __init__(self, network: InstantCharacter, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self._layers = {name: network.get_submodule(name) for name in trainable_layers(network)}
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name, layer in self._layers.items():
            assert isinstance(layer, nn.Linear)
            down = torch.randn(rank, layer.in_features) * layer.in_features**-0.5
            self.down[_key(name)] = nn.Parameter(down)
            self.up[_key(name)] = nn.Parameter(torch.zeros(layer.out_features, rank))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Make the layers add their factors' output."""
        handles = [
            layer.register_forward_hook(self._hook(name)) for name, layer in self._layers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def save(self, path: Path) -> None:
        """Write a file in diffusers' layout, alpha in its metadata."""
        tensors: dict[str, Tensor] = {}
        for name in self._layers:
            for half, factors in (("A", self.down), ("B", self.up)):
                values = factors[_key(name)].detach().half().contiguous()
                tensors[f"{name}.lora_{half}.weight"] = values
        about = {"transformer.r": self.rank, "transformer.lora_alpha": self.rank}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, {"format": "pt", METADATA: json.dumps(about)})

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        def add(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            return output + (inputs[0] @ self.down[_key(name)].T) @ self.up[_key(name)].T

        return add


def _key(name: str) -> str:
    """A layer's name in a form that a parameter may have."""
    return name.replace(".", "/")
