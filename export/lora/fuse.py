"""LoRAs fused into a network before it is quantized; removing them leaves no trace.

Fused means `W + scale * alpha / rank * B @ A` for each LoRA in turn, computed in fp32 from the
pristine weight. The pristine tensors are kept, not subtracted back: so removal is exact, and
rounding does not pile up.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from castmate.engines.manifest import LoraSpec
from export.errors import ExportError, listed
from export.family import LoraLayers, Network, lora_layers
from export.lora.file import LowRank, read


@dataclass(frozen=True)
class Lora:
    """One LoRA file and how strongly it applies."""

    path: Path
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str, flag: str) -> Self:
        """Read `FILE[:SCALE]`.

        Args:
            text: What was given.
            flag: For what, in messages.

        Raises:
            ExportError: The scale is no number.
        """
        path, colon, scale = text.rpartition(":")
        if not colon:
            return cls(Path(text))
        try:
            if math.isfinite(strength := float(scale)):
                return cls(Path(path), strength)
        except ValueError:
            pass
        raise ExportError(f"{flag} {text}: the scale {scale!r} is no number, such as 0.8.")

    def spec(self) -> LoraSpec:
        """What a manifest says of it."""
        with self.path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return LoraSpec(file=self.path.name, sha256=digest, scale=self.scale)


class Delta(NamedTuple):
    """`factor * up @ down`, added to the rows of a weight from `start` on."""

    start: int
    down: Tensor
    up: Tensor
    factor: float


class FusedNetwork:
    """A network whose LoRAs can be changed, as long as it is not quantized."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._names = lora_layers(network)
        self._pristine: dict[str, Tensor] = {}

    def apply(self, loras: Sequence[Lora]) -> None:
        """Replace whatever is fused by these; none leaves the pristine weights.

        Raises:
            ExportError: A file does not fit; the weights are then as they were before.
        """
        every: dict[str, list[Delta]] = defaultdict(list)
        for lora in loras:
            for layer, found in deltas(lora, self._network, self._names).items():
                every[layer] += found
        self.remove()
        for name, changes in every.items():
            weight = _linear(self._network, name).weight
            fused = weight.data.to(torch.float32, copy=True)
            for start, down, up, factor in changes:
                product = factor * (up.float() @ down.float())
                fused[start : start + len(product)] += product.to(fused.device)
            self._pristine[name] = weight.data
            weight.data = fused.to(weight.dtype)

    def remove(self) -> None:
        """Put the pristine weights back."""
        for name, weight in self._pristine.items():
            _linear(self._network, name).weight.data = weight
        self._pristine.clear()


def deltas(
    lora: Lora, network: Network, names: LoraLayers | None = None
) -> Mapping[str, list[Delta]]:
    """What a file adds to each layer.

    Args:
        lora: The file.
        network: Whose layers.
        names: Those of its layers in files, where they have been listed already.

    Raises:
        ExportError: Something in it does not fit; names the file and every such key.
    """
    names = lora_layers(network) if names is None else names
    file = read(lora.path)
    problems = list(file.problems)
    found: dict[str, list[Delta]] = defaultdict(list)
    changed_by: dict[str, str] = {}
    for change in file.changes:
        rows = names.get(change.name, ())
        problem = _misfit(change, network, names)
        for layer in {layer for layer, _, _ in rows}:
            if (other := changed_by.setdefault(layer, change.name)) != change.name:
                problem = f"{other} changes {layer} too"
        if problem:
            problems.append(f"{change.name}: {problem}")
            continue
        done = 0
        for layer, start, count in rows:
            up = change.up[done : done + count]
            found[layer].append(Delta(start, change.down, up, lora.scale * change.scaling))
            done += count
    if problems:
        raise ExportError(
            f"{lora.path} does not fit {network.config.name!r}, so nothing was fused:"
            f"\n  {listed(problems)}\nTake a LoRA that was trained for this network, in the layout "
            "of diffusers, PEFT, kohya, XLabs, ComfyUI or ai-toolkit."
        )
    return found


def _misfit(change: LowRank, network: Network, names: LoraLayers) -> str:
    """Why a change cannot be added; empty where it can."""
    if (rows := names.get(change.name)) is None:
        return "the network has no such layer"
    width = _linear(network, rows[0].layer).in_features
    shape = (sum(count for _, _, count in rows), width)
    up, down = change.up, change.down
    if (up.shape[0], down.shape[1]) != shape:
        return f"{tuple(up.shape)} x {tuple(down.shape)}, the layer is {shape}"
    return ""


def _linear(network: Network, name: str) -> nn.Linear:
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer
