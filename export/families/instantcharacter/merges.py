"""Which linear layers of InstantCharacter's denoiser are merged when it is quantized."""

from __future__ import annotations

from collections.abc import Iterator

from diffusers.models.transformers.transformer_flux import (
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from torch import nn

from export.families.instantcharacter.blocks import QKV_MLP
from export.families.instantcharacter.subject_attention import (
    ADDED_QKV,
    KV_IP,
    QKV,
    SubjectAttention,
)
from export.quantization.merge import Group


def merges(module: nn.Module) -> Iterator[Group]:
    """The groups in a network or a denoiser, named from it."""
    for name, layer in module.named_modules():
        if isinstance(layer, FluxTransformerBlock):
            yield QKV.within(f"{name}.attn")
            yield ADDED_QKV.within(f"{name}.attn")
        elif isinstance(layer, FluxSingleTransformerBlock):
            yield QKV_MLP.within(name)
        elif isinstance(layer, SubjectAttention):
            yield KV_IP.within(name)
