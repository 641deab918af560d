"""InstantCharacter's subject branch in FLUX's attention; does not know where tokens come from.

Every block gets keys and values for the subject tokens. Its image queries, taken raw (before the
block's own query norm and without RoPE), attend to them, and the result, times `subject_scale`, is
added to the attention output of the image tokens: before the output projection in a double block,
before the concatenation with the MLP branch in a single block. Text tokens are untouched.
Source: InstantCharacter (arXiv 2504.12395) and its published weights `ip_adapter.*`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxTransformer2DModel
from torch import Tensor, nn

from export.attention import ScaledDotProduct
from export.quantization.merge import Group

QKV = Group("to_qkv", ("to_q", "to_k", "to_v"))
ADDED_QKV = Group("to_added_qkv", ("add_q_proj", "add_k_proj", "add_v_proj"))
KV_IP = Group("to_kv_ip", ("to_k_ip", "to_v_ip"))


class SubjectRMSNorm(nn.Module):
    """`x / (rms(x) + eps) * scale`: unlike `torch.nn.RMSNorm`, eps is outside the root."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis; computed in fp32, returned in the dtype of `x`."""
        wide = x.float()
        rms = wide.square().mean(-1, keepdim=True).sqrt()
        return (wide / (rms + self.eps)).to(x.dtype) * self.scale


class SubjectAttention(nn.Module):
    """One block's `norm_ip_q`, `to_k_ip`, `norm_ip_k` and `to_v_ip`.

    It holds both attentions of its block, its own and FLUX's, so that each has a name.
    """

    def __init__(self, dim: int, head_dim: int, num_tokens: int, token_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.norm_ip_q = SubjectRMSNorm(head_dim)
        self.to_k_ip = nn.Linear(token_dim, dim)
        self.norm_ip_k = SubjectRMSNorm(head_dim)
        self.to_v_ip = nn.Linear(token_dim, dim)
        self.subject_core = ScaledDotProduct(num_tokens)
        self.joint_core = ScaledDotProduct()

    def forward(self, query: Tensor, subject_embeds: Tensor) -> Tensor:
        """Attend from image queries to subject tokens.

        Args:
            query: `[B, S, dim]`, the block's `to_q` output for image tokens.
            subject_embeds: `[B or 1, N, token_dim]`; with 1, one subject serves the whole batch and
                its keys and values are computed once.

        Returns:
            `[B, S, dim]`, not yet scaled.
        """

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (-1, self.head_dim))

        batch = query.shape[0]
        key, value = KV_IP.outputs(self, subject_embeds)
        q = self.norm_ip_q(heads(query)).transpose(1, 2)
        k = self.norm_ip_k(heads(key)).transpose(1, 2).expand(batch, -1, -1, -1)
        v = heads(value).transpose(1, 2).expand(batch, -1, -1, -1)
        out: Tensor = self.subject_core(q, k, v)
        return out.transpose(1, 2).flatten(2)


class Projected(NamedTuple):
    """Queries, keys and values as projected, each `[B, S, dim]`."""

    query: Tensor
    key: Tensor
    value: Tensor


class SubjectFluxAttnProcessor:
    """A diffusers attention processor that adds the subject branch to `FluxAttention`.

    It holds its `SubjectAttention` without owning it, so FLUX's own state dict stays as published.
    """

    def __init__(self, subject: SubjectAttention) -> None:
        self.subject = subject

    def __call__(
        self,
        attn: FluxAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        subject_embeds: Tensor | None = None,
        subject_scale: Tensor | float = 1.0,
        num_text_tokens: int = 0,
    ) -> Any:
        """Run joint attention plus the subject branch.

        Args:
            attn: The attention layer of the block.
            hidden_states: `[B, S, dim]`: image tokens in a double block; text then image tokens
                in a single block.
            encoder_hidden_states: `[B, L, dim]`, text tokens; None in a single block.
            attention_mask: FLUX uses none, and here none is used.
            image_rotary_emb: cos and sin, each `[L + S, head_dim]`.
            subject_embeds: `[B or 1, N, token_dim]`, or None for no subject.
            subject_scale: Broadcastable to `[B, 1, 1]`.
            num_text_tokens: L, needed in a single block only.
        """
        image, text = Projected(*QKV.outputs(attn, hidden_states)), None
        if encoder_hidden_states is not None:
            text = Projected(*ADDED_QKV.outputs(attn, encoder_hidden_states))
            num_text_tokens = encoder_hidden_states.shape[1]
        text_out, image_out = attend(
            attn, image, text, num_text_tokens, image_rotary_emb, subject_embeds, subject_scale
        )
        if text is None:
            return torch.cat([text_out, image_out], dim=1)
        return attn.to_out[1](attn.to_out[0](image_out)), attn.to_add_out(text_out)


def attend(
    attn: FluxAttention,
    image: Projected,
    text: Projected | None,
    num_text_tokens: int,
    rotary_emb: tuple[Tensor, Tensor] | None,
    subject_embeds: Tensor | None,
    subject_scale: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """Joint attention plus the subject branch, between the projections.

    Args:
        attn: The attention layer of the block, with a `SubjectFluxAttnProcessor`.
        image: Of image tokens, or of text then image tokens in a single block.
        text: Of text tokens; None in a single block.
        num_text_tokens: L.
        rotary_emb: cos and sin, each `[L + S, head_dim]`.
        subject_embeds: `[B or 1, N, token_dim]`, or None for no subject.
        subject_scale: Broadcastable to `[B, 1, 1]`.

    Returns:
        Text and image tokens, each `[B, ..., dim]`.
    """
    subject: SubjectAttention = attn.processor.subject

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, attn.head_dim))

    query, key = attn.norm_q(heads(image.query)), attn.norm_k(heads(image.key))
    value = heads(image.value)
    if text is not None:
        query = torch.cat([attn.norm_added_q(heads(text.query)), query], dim=1)
        key = torch.cat([attn.norm_added_k(heads(text.key)), key], dim=1)
        value = torch.cat([heads(text.value), value], dim=1)
    if rotary_emb is not None:
        query = apply_rotary_emb(query, rotary_emb, sequence_dim=1)
        key = apply_rotary_emb(key, rotary_emb, sequence_dim=1)
    out = subject.joint_core(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    out = out.transpose(1, 2).flatten(2)
    text_out, image_out = out[:, :num_text_tokens], out[:, num_text_tokens:]
    if subject_embeds is not None:
        raw = image.query if text is not None else image.query[:, num_text_tokens:]
        image_out = image_out + subject_scale * subject(raw, subject_embeds)
    return text_out, image_out


def attach_subject_attention(
    transformer: FluxTransformer2DModel, num_tokens: int, token_dim: int
) -> nn.ModuleList:
    """Give every block of `transformer` a subject branch.

    Args:
        transformer: FLUX's.
        num_tokens: Of a subject.
        token_dim: Size of each.

    Returns:
        The branches, double blocks first: index i is `ip_adapter`'s key prefix `{i}.` in the
        published file.
    """
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    branches = [
        SubjectAttention(transformer.inner_dim, block.attn.head_dim, num_tokens, token_dim)
        for block in blocks
    ]
    for block, branch in zip(blocks, branches, strict=True):
        block.attn.set_processor(SubjectFluxAttnProcessor(branch))
    return nn.ModuleList(branches)
