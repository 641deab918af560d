"""LoRAs as styles: not fused, but brought into the shape in which a bundle's graphs take factors.

Whoever names a style in a request has its factors bound to the graphs instead of zeros; nothing is
loaded. Only layers that one of the bundle's styles changes get a branch.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from castmate.engines.graphs import Range
from castmate.engines.manifest import LoraSpec
from castmate.schema import MAX_STYLE_CHARACTERS
from export.errors import ExportError, listed
from export.family import Network, family_of
from export.lora.branches import Slot, slots_of
from export.lora.fuse import Delta, Lora, deltas

RANK_STEP: Final = 8
"""Ranks are filled with zeros to a multiple of it: rows of bf16 then begin at 16 bytes, which
tensor cores read at once."""
_NAME: Final = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{MAX_STYLE_CHARACTERS - 1}}}")


@dataclass(frozen=True)
class Style:
    """A style of a bundle: its name in requests, and the LoRA that it is made from."""

    name: str
    lora: Lora

    @classmethod
    def parse(cls, text: str) -> Style:
        """Read `NAME=FILE[:SCALE]`.

        Raises:
            ExportError: It is not of this form.
        """
        name, equals, lora = text.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise ExportError(
                f"--style {text}: write NAME=FILE[:SCALE]; a name has up to {MAX_STYLE_CHARACTERS} "
                "small letters, digits and hyphens, such as night-ink."
            )
        return cls(name, Lora.parse(lora, "--style"))


@dataclass(frozen=True)
class Styles:
    """The styles of one network, ready for its bundle.

    Attributes:
        loras: What each was made from.
        factors: Of each, by input.
    """

    loras: Mapping[str, LoraSpec]
    factors: Mapping[str, Mapping[str, Tensor]]

    @property
    def rank(self) -> Range:
        """Of the inputs; without a style they have no columns."""
        largest = max(one.shape[1] for found in self.factors.values() for one in found.values())
        return Range(min=0, opt=largest, max=largest)


def prepare(network: Network, styles: Sequence[Style]) -> Styles | None:
    """Give a network's graphs the inputs that some styles need.

    Args:
        network: Not quantized; gets `style_slots`.
        styles: None of one name; without any, the network stays as it is.

    Raises:
        ExportError: A file does not fit, or changes what a style cannot change.
    """
    if not styles:
        return None
    allowed = family_of(network.family).style_layers(network)
    known = {layer for layers in allowed.values() for layer in layers}
    changes = {}
    for style in styles:
        found = changes[style.name] = deltas(style.lora, network)
        if beyond := sorted(set(found) - known):
            raise ExportError(
                f"--style {style.name}: {style.lora.path} changes layers that are not part of a "
                f"step, such as those of text encoders:\n  {listed(beyond)}\nA style chosen by "
                "name cannot reach them. For a bundle that always draws in this style, fuse the "
                f"whole file: --lora {style.lora.path}:{style.lora.scale:g}. Otherwise remove the "
                "tensors of these layers from the file, or train it without them."
            )
    touched = {layer for found in changes.values() for layer in found}
    network.style_slots = {
        name: slots_of((layer, _linear(network, layer)) for layer in layers if layer in touched)
        for name, layers in allowed.items()
        if not touched.isdisjoint(layers)
    }
    return Styles(
        {style.name: style.lora.spec() for style in styles},
        {
            name: {key: _packed(slots, found) for key, slots in network.style_slots.items()}
            for name, found in changes.items()
        },
    )


def write(path: Path, factors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write the factors of a style as `castmate.engines.manifest.StyleSpec` says."""
    arrays: dict[str, np.ndarray] = {
        name: found.bfloat16().view(torch.uint16).numpy()
        if dtype == torch.bfloat16
        else found.half().numpy()
        for name, found in factors.items()
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]


def probe(network: Network) -> dict[str, Tensor]:
    """Factors that change every layer, for golden tensors: a pattern, so that few bytes hold it."""
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randint(0, 2, (4093,), generator=generator) / 8 - 1 / 16
    found = {}
    for name, slots in network.style_slots.items():
        size = slots[-1].end * RANK_STEP
        found[name] = pattern.repeat(-(-size // len(pattern)))[:size].view(-1, RANK_STEP)
    return found


def _packed(slots: Sequence[Slot], changes: Mapping[str, Sequence[Delta]]) -> Tensor:
    """The factors of every layer under one another, `[rows, rank]`."""
    pairs = {slot: _pair(slot, changes[slot.layer]) for slot in slots if slot.layer in changes}
    rank = max((up.shape[1] for _, up in pairs.values()), default=0)
    rank = max(-(-rank // RANK_STEP), 1) * RANK_STEP
    packed = torch.zeros(slots[-1].end, rank)
    for slot, (down, up) in pairs.items():
        packed[slot.start : slot.middle, : down.shape[0]] = down.T
        packed[slot.middle : slot.end, : up.shape[1]] = up
    return packed


def _pair(slot: Slot, changes: Sequence[Delta]) -> tuple[Tensor, Tensor]:
    """One product for all changes of a layer: `[rank, in]` and `[out, rank]`, of equal size."""
    by_down: dict[int, list[Delta]] = defaultdict(list)
    for change in changes:  # parts of one layer may share what they read
        by_down[id(change.down)].append(change)
    downs, ups = [], []
    for parts in by_down.values():
        downs.append(parts[0].down.float())
        up = torch.zeros(slot.out_features, downs[-1].shape[0])
        for part in parts:
            up[part.start : part.start + len(part.up)] = part.factor * part.up.float()
        ups.append(up)
    down, up = torch.cat(downs), torch.cat(ups, dim=1)
    # Else small ones, of a weak LoRA, would be rounded to nothing in fp16.
    balance = (up.abs().max().clamp(min=1e-12) / down.abs().max().clamp(min=1e-12)).sqrt()
    return down * balance, up / balance


def _linear(network: Network, name: str) -> nn.Linear:
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer
