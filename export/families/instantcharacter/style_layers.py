"""Which layers of InstantCharacter a style may change, and which graph runs each of them."""

from __future__ import annotations

from typing import Final

from torch import nn

from castmate.families.instantcharacter.graphs import PARTS, TABLE, WHOLE
from export.families.instantcharacter.merges import merges
from export.families.instantcharacter.modulation import LAYERS
from export.families.instantcharacter.network import InstantCharacter
from export.lora.branches import NO_BRANCHES, Branches
from export.quantization.quantize import is_within

STEP, MODULATION = "style_factors", "style_modulation_factors"
HEAD, TAIL, FINISH = PARTS
_EMBEDDERS: Final = ("transformer.x_embedder", "transformer.context_embedder")
_FIRST: Final = ("transformer.transformer_blocks.0",)
_LAST: Final = ("transformer.proj_out",)


def style_layers(network: InstantCharacter) -> dict[str, tuple[str, ...]]:
    """The transformer's linear layers by the input that takes their factors.

    Others run before there is a style: what they give is kept for requests in any.
    """
    layers = [
        f"transformer.{name}"
        for name, layer in network.transformer.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    hoisted = tuple(name for name in layers if is_within(name, LAYERS))
    return {
        STEP: tuple(name for name in layers if name not in set(hoisted)),
        MODULATION: hoisted,
    }


def branches_of(network: InstantCharacter, graph: str) -> Branches:
    """The branches of the layers that a graph runs."""
    for name in TABLE.graphs[graph].optional:
        slots = [
            slot
            for slot in network.style_slots.get(name, ())
            if graph in (WHOLE, "modulation") or _part_of(slot.layer) == graph
        ]
        if slots:
            return Branches(network, slots, merges(network))
    return NO_BRANCHES


def inputs_of(network: InstantCharacter, graph: str) -> tuple[str, ...]:
    """The optional inputs of a graph that it takes."""
    return tuple(TABLE.graphs[graph].optional) if branches_of(network, graph) else ()


def _part_of(layer: str) -> str:
    """Which of the transformer's parts runs a layer."""
    if is_within(layer, (*_EMBEDDERS, *_FIRST)):
        return HEAD
    return FINISH if is_within(layer, _LAST) else TAIL
