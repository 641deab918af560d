"""The timestep-conditioned half of `image_proj`: subject features to tokens of each step.

All steps of a schedule go through it as one batch. Source: InstantCharacter (arXiv 2504.12395),
published weights `image_proj.resampler.*`; a Perceiver resampler with adaLN on its latents.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from export.families.instantcharacter.config import ResamplerConfig


class PerceiverAttention(nn.Module):
    """Latents attend to the features and to themselves."""

    def __init__(self, dim: int, dim_head: int, heads: int) -> None:
        super().__init__()
        self.dim_head = dim_head
        inner = dim_head * heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor, latents: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """`x [T, F, dim]`, `latents [T, N, dim]`, modulation `[T, 1, dim]` to `[T, N, dim]`."""

        def heads(y: Tensor) -> Tensor:
            return y.unflatten(-1, (-1, self.dim_head)).transpose(1, 2)

        latents = self.norm2(latents) * (1 + scale) + shift
        k, v = self.to_kv(torch.cat([self.norm1(x), latents], dim=1)).chunk(2, dim=-1)
        out = F.scaled_dot_product_attention(heads(self.to_q(latents)), heads(k), heads(v))
        attended: Tensor = self.to_out(out.transpose(1, 2).flatten(2))
        return attended


class ResamplerLayer(nn.ModuleList):
    """`[attention, feed-forward, modulation]`: a list, as the published keys number them."""

    def __init__(self, config: ResamplerConfig) -> None:
        dim, hidden = config.dim, config.ff_mult * config.dim
        super().__init__(
            [
                PerceiverAttention(dim, config.dim_head, config.heads),
                nn.Sequential(
                    nn.LayerNorm(dim),
                    nn.Linear(dim, hidden, bias=False),
                    nn.GELU(),
                    nn.Linear(hidden, dim, bias=False),
                ),
                nn.Sequential(nn.SiLU(), nn.Linear(dim, 4 * dim)),
            ]
        )

    def forward(self, x: Tensor, latents: Tensor, temb: Tensor) -> Tensor:
        """`x [T, F, dim]`, `latents [T, N, dim]` and `temb [T, dim]` to `[T, N, dim]`."""
        attention, feed_forward, modulation = self
        shift_msa, scale_msa, shift_mlp, scale_mlp = modulation(temb)[:, None].chunk(4, dim=-1)
        latents = latents + attention(x, latents, shift_msa, scale_msa)
        norm, linear_1, gelu, linear_2 = feed_forward.children()
        hidden = norm(latents) * (1 + scale_mlp) + shift_mlp
        return latents + linear_2(gelu(linear_1(hidden)))


class SubjectResampler(nn.Module):
    """`[B, F, feature_dim]` features and timesteps to `[T, num_queries, output_dim]` tokens."""

    def __init__(self, config: ResamplerConfig, feature_dim: int) -> None:
        super().__init__()
        dim = config.dim
        self.latents = nn.Parameter(torch.randn(1, config.num_queries, dim) / dim**0.5)
        self.proj_in = nn.Linear(feature_dim, dim)
        self.proj_out = nn.Linear(dim, config.output_dim)
        self.norm_out = nn.LayerNorm(config.output_dim)
        self.layers = nn.ModuleList(ResamplerLayer(config) for _ in range(config.depth))
        self.time_proj = Timesteps(config.timestep_in_dim, True, 0)
        self.time_embedding = TimestepEmbedding(config.timestep_in_dim, dim)

    def forward(self, subject_features: Tensor, timesteps: Tensor) -> Tensor:
        """Make the subject tokens of every timestep.

        Args:
            subject_features: `[T or 1, F, feature_dim]`; with 1, one subject at every timestep.
            timesteps: `[T]` on the scale 0..1000. The published code rounds them to bf16; here they
                are used as they are.

        Returns:
            `[T, num_queries, output_dim]`.
        """
        temb = self.time_embedding(self.time_proj(timesteps).to(self.proj_in.weight.dtype))
        x = self.proj_in(subject_features) + temb[:, None]
        latents = self.latents.expand(timesteps.shape[0], -1, -1)
        for layer in self.layers:
            latents = layer(x, latents, temb)
        tokens: Tensor = self.norm_out(self.proj_out(latents))
        return tokens
