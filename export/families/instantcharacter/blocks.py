"""FLUX's blocks on modulations that are given; diffusers' blocks make them anew in every step.

Otherwise equal to the `forward` of `FluxTransformerBlock` and `FluxSingleTransformerBlock`, whose
layers they run. Modulations are `[B, 1, values]`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from diffusers.models.transformers.transformer_flux import (
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from torch import Tensor, nn

from export.families.instantcharacter.subject_attention import Projected, attend
from export.quantization.merge import Group

QKV_MLP = Group("to_qkv_mlp", ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"))
NARROW = 2**17
"""A type whose largest number is below this overflows in FLUX's residual stream."""


class Shared(NamedTuple):
    """What all blocks of a step share.

    Attributes:
        rotary_emb: cos and sin, each `[L + S, head_dim]` fp32, text rows first.
        subject_embeds: `[B or 1, N, token_dim]`, the subject tokens of the step, or None.
        subject_scale: Broadcastable to `[B, 1, 1]`; 0 equals no subject.
    """

    rotary_emb: tuple[Tensor, Tensor]
    subject_embeds: Tensor | None = None
    subject_scale: Tensor | float = 1.0


def double_block(
    block: FluxTransformerBlock, image: Tensor, text: Tensor, modulation: Tensor, shared: Shared
) -> tuple[Tensor, Tensor]:
    """Image and text tokens, each with weights of their own, attend to all of both."""
    of_image, of_text = (part.chunk(6, dim=-1) for part in modulation.chunk(2, dim=-1))
    attended, text_attended = block.attn(
        modulated(block.norm1.norm, image, *of_image[:2]),
        modulated(block.norm1_context.norm, text, *of_text[:2]),
        image_rotary_emb=shared.rotary_emb,
        subject_embeds=shared.subject_embeds,
        subject_scale=shared.subject_scale,
    )
    image = _after_attention(image, attended, block.norm2, block.ff, of_image[2:])
    text = _after_attention(text, text_attended, block.norm2_context, block.ff_context, of_text[2:])
    return image, _within_range(text)


def single_block(
    block: FluxSingleTransformerBlock,
    joint: Tensor,
    num_text_tokens: int,
    modulation: Tensor,
    shared: Shared,
) -> Tensor:
    """Text and image tokens as one sequence; attention and MLP side by side."""
    shift, scale, gate = modulation.chunk(3, dim=-1)
    *qkv, mlp = QKV_MLP.outputs(block, modulated(block.norm.norm, joint, shift, scale))
    attended = attend(block.attn, Projected(*qkv), None, num_text_tokens, *shared)
    x = torch.cat([torch.cat(attended, dim=1), block.act_mlp(mlp)], dim=2)
    return _within_range(joint + gate * block.proj_out(x))


def modulated(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """AdaLN."""
    normed: Tensor = norm(x)
    return normed * (1 + scale) + shift


def _after_attention(
    x: Tensor, attended: Tensor, norm: nn.Module, mlp: nn.Module, modulation: tuple[Tensor, ...]
) -> Tensor:
    gate, shift, scale, mlp_gate = modulation
    x = x + gate * attended
    return x + mlp_gate * mlp(modulated(norm, x, shift, scale))


def _within_range(x: Tensor) -> Tensor:
    largest = torch.finfo(x.dtype).max
    return x.clip(-largest, largest) if largest < NARROW else x
