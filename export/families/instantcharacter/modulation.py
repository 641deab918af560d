"""The modulations of a step: shifts, scales and gates of every AdaLN, from all but the latents.

They depend on the pooled prompt, the guidance and the timestep alone, so they are computed for all
steps at once, and no step reads the weights that make them (a quarter of FLUX's).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from export.lora.branches import NO_BRANCHES, Branches

LAYERS = (".time_text_embed", ".norm.linear", ".norm1.linear", ".norm1_context.linear", ".norm_out")
"""Parts of the names of the transformer's layers that run here and not in its steps."""


class Modulation(nn.Module):
    """The AdaLN layers of a transformer and their embedders, under the transformer's names."""

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        super().__init__()
        self.time_text_embed = transformer.time_text_embed
        self.transformer_blocks = nn.ModuleList(
            nn.ModuleDict({"norm1": block.norm1, "norm1_context": block.norm1_context})
            for block in transformer.transformer_blocks
        )
        self.single_transformer_blocks = nn.ModuleList(
            nn.ModuleDict({"norm": block.norm}) for block in transformer.single_transformer_blocks
        )
        self.norm_out = transformer.norm_out

    def forward(self, pooled_projections: Tensor, guidance: Tensor, timesteps: Tensor) -> Tensor:
        """Make the modulations of some rows.

        Timesteps and guidance stay fp32 until they are sines: diffusers rounds them to the dtype of
        the weights first, which in bf16 moves a timestep by up to 2 of 1000.

        Args:
            pooled_projections: `[B, pooled_projection_dim]`, CLIP's pooled output.
            guidance: `[B]`, the guidance scale.
            timesteps: `[B]`, on the scale 0..1000.

        Returns:
            `[B, A]`: everything that `sections` takes apart.
        """
        temb = F.silu(
            self.time_text_embed(timesteps.float(), guidance.float() * 1000, pooled_projections)
        )
        return torch.cat([linear(temb) for linear in self._linears()], dim=-1)

    def _linears(self) -> Iterator[nn.Linear]:
        for block in (*self.transformer_blocks, *self.single_transformer_blocks):
            yield from (norm.linear for norm in block.values())
        yield self.norm_out.linear


class ModulationGraph(nn.Module):
    """Every step of a schedule and every guidance pass in one batch."""

    def __init__(self, modulation: Modulation, branches: Branches = NO_BRANCHES) -> None:
        super().__init__()
        self.modulation, self.branches = modulation, branches

    def forward(
        self,
        pooled_projections: Tensor,
        guidance: Tensor,
        timesteps: Tensor,
        style_modulation_factors: Tensor | None = None,
    ) -> Tensor:
        steps, passes = timesteps.shape[0], pooled_projections.shape[0]
        with self.branches.with_factors(style_modulation_factors):
            rows = self.modulation(
                pooled_projections.expand(steps, -1, -1).flatten(0, 1),
                guidance.expand(steps * passes),
                timesteps.unsqueeze(1).expand(-1, passes).flatten(),
            )
        return rows.unflatten(0, (steps, passes))


class Sections(NamedTuple):
    """One row of modulations taken apart, each part `[B, 1, values]`.

    Attributes:
        double: Of each double block: shift, scale and gate of the attention, then of the MLP; for
            image tokens, then for text tokens.
        single: Of each single block: shift, scale and gate.
        out: Scale and shift of the last norm.
    """

    double: tuple[Tensor, ...]
    single: tuple[Tensor, ...]
    out: Tensor


def widths(doubles: int, singles: int, dim: int) -> tuple[int, ...]:
    """Values of each double block, of each single block, and of the last norm.

    Args:
        doubles: Number of double blocks.
        singles: Number of single blocks.
        dim: Width of the transformer.
    """
    return (12 * dim,) * doubles + (3 * dim,) * singles + (2 * dim,)


def sections(transformer: FluxTransformer2DModel, modulation: Tensor) -> Sections:
    """Take rows `[B, A]` of modulations apart."""
    doubles, singles = transformer.transformer_blocks, transformer.single_transformer_blocks
    sizes = widths(len(doubles), len(singles), transformer.inner_dim)
    *blocks, out = modulation.unsqueeze(1).split(sizes, dim=-1)
    return Sections(tuple(blocks[: len(doubles)]), tuple(blocks[len(doubles) :]), out)
