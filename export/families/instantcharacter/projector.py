"""The timestep-independent half of `image_proj`: image features to subject features.

The published code runs it in every denoise step; it depends on the reference alone, so here it runs
once per character. Source: InstantCharacter (arXiv 2504.12395), section 3.2; published weights
`image_proj.*` without `image_proj.resampler.*`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from export.families.instantcharacter.config import ProjectorConfig


@dataclass(frozen=True)
class ImageFeatures:
    """What one image encoder sees of a reference; n tokens a crop, c channels.

    Attributes:
        low_res_deep: `[B, n, c]`, last layer, whole picture.
        low_res_shallow: `[B, layers * n, c]`, earlier layers one after the other, whole picture.
        high_res_deep: `[B, 4 * n, c]`, last layer, four quarters at twice the resolution.
    """

    low_res_deep: Tensor
    low_res_shallow: Tensor
    high_res_deep: Tensor

    def __add__(self, other: ImageFeatures) -> ImageFeatures:
        """Both encoders' features side by side: concatenated on channels."""
        return ImageFeatures(
            torch.cat([self.low_res_deep, other.low_res_deep], dim=-1),
            torch.cat([self.low_res_shallow, other.low_res_shallow], dim=-1),
            torch.cat([self.high_res_deep, other.high_res_deep], dim=-1),
        )


class ProjectorMLP(nn.Module):
    """`fc1`, tanh-GELU, `fc2`, twice as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * dim)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., dim]` to `[..., dim]`."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class SubjectProjector(nn.Module):
    """Deep features enriched from shallow layers (cross-layer) and finer crops (cross-scale)."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(
                BasicTransformerBlock(
                    config.dim,
                    num_attention_heads=config.dim // config.attention_head_dim,
                    attention_head_dim=config.attention_head_dim,
                    cross_attention_dim=config.dim,
                    norm_eps=1e-6,
                )
                for _ in range(config.num_blocks)
            )

        self.cross_layer_blocks = blocks()
        self.cross_scale_blocks = blocks()
        self.proj = ProjectorMLP(config.dim)
        self.proj_cross_layer = ProjectorMLP(config.dim)
        self.proj_cross_scale = ProjectorMLP(config.dim)

    def forward(self, features: ImageFeatures) -> Tensor:
        """Project the features of both encoders.

        Args:
            features: Channels of both encoders concatenated, c = `config.dim`.

        Returns:
            Subject features `[B, 2n, c]`.
        """
        low = features.low_res_deep
        by_layer = by_scale = low
        for block in self.cross_layer_blocks:
            by_layer = block(by_layer, encoder_hidden_states=features.low_res_shallow)
        for block in self.cross_scale_blocks:
            by_scale = block(by_scale, encoder_hidden_states=features.high_res_deep)
        fine = self.proj(low) + self.proj_cross_scale(by_scale)
        return torch.cat([fine, self.proj_cross_layer(by_layer)], dim=1)
