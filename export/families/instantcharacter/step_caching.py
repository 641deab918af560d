"""The transformer's step in three graphs, so that a step may skip all but its first block.

`transformer_head` runs the embedders and the first double block and measures how much the block's
contribution changed since the last computed step; `transformer_tail` runs the other blocks;
`transformer_finish` adds what they changed, projects and takes the Euler step. In sequence they
equal `transformer`, so a bundle with them holds no `transformer`: every weight is there once. A
cached step runs head and finish with the `tail_residual` of an earlier step: the host reads one
number, `change`, to decide.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from castmate.engines.manifest import StepCachingSpec
from castmate.families.instantcharacter.graphs import graph_names
from export.families.instantcharacter.denoiser import Denoiser
from export.families.instantcharacter.graphs import (
    denoiser_inputs,
    euler_step,
    export_graphs,
    makers,
)
from export.families.instantcharacter.network import InstantCharacter
from export.graphs import Makers

FLUX_STEP_CACHING = StepCachingSpec(
    balanced=0.08,
    fast=0.12,
    chosen_on="FLUX.1-dev without an adapter, as published by ParaAttention; to be chosen again "
    "for this model: python -m benchmarks.quality",
)


class HeadGraph(nn.Module):
    """Embedders, the first double block, and the measure of change."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self,
        latents: Tensor,
        step: Tensor,
        sigmas: Tensor,
        guidance: Tensor,
        prompt_embeds: Tensor,
        pooled_projections: Tensor,
        subject_embeds: Tensor,
        subject_scale: Tensor,
        rotary_emb_cos: Tensor,
        rotary_emb_sin: Tensor,
        previous_head_residual: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Run the first block.

        `head_residual` is what the block added to the image tokens, and `change` the mean absolute
        difference from `previous_head_residual`, that of the last computed step, relative to the
        mean magnitude of that. Zeros make it infinite, so that the first step is computed.
        """
        denoiser, dtype = self.denoiser, self.denoiser.dtype
        before, text, temb = denoiser.embed(
            *denoiser_inputs(
                dtype, latents, step, sigmas, guidance, prompt_embeds, pooled_projections
            )
        )
        image, text = denoiser.run(
            slice(1),
            before,
            text,
            temb,
            (rotary_emb_cos, rotary_emb_sin),
            subject_embeds.index_select(0, step),
            subject_scale.to(dtype),
        )
        residual = image.float() - before.float()
        difference = (residual - previous_head_residual).abs().mean()
        change = (difference / previous_head_residual.abs().mean()).reshape(1)
        return image, text, temb, residual, change


class TailGraph(nn.Module):
    """All blocks but the first; `tail_residual` is what they add to the image tokens."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        step: Tensor,
        subject_embeds: Tensor,
        subject_scale: Tensor,
        rotary_emb_cos: Tensor,
        rotary_emb_sin: Tensor,
    ) -> Tensor:
        image, _ = self.denoiser.run(
            slice(1, None),
            hidden_states,
            encoder_hidden_states,
            temb,
            (rotary_emb_cos, rotary_emb_sin),
            subject_embeds.index_select(0, step),
            subject_scale.to(self.denoiser.dtype),
        )
        return image - hidden_states


class FinishGraph(nn.Module):
    """Projection, true-CFG mix and Euler update: `next_latents` as in `TransformerGraph`."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self,
        latents: Tensor,
        step: Tensor,
        sigmas: Tensor,
        true_cfg_scale: Tensor,
        hidden_states: Tensor,
        tail_residual: Tensor,
        temb: Tensor,
    ) -> Tensor:
        velocity = self.denoiser.project(hidden_states + tail_residual, temb)
        return euler_step(latents, velocity, step, sigmas, true_cfg_scale)


def bundle_graphs(network: InstantCharacter, *, step_caching: bool) -> Makers:
    """Every graph of a bundle by name, the transformer whole or in its three parts."""
    every = {**export_graphs(network), **step_caching_graphs(network)}
    return {
        name: every[name]
        for name in graph_names(step_caching=step_caching, matte=network.matte is not None)
    }


def step_caching_graphs(network: InstantCharacter) -> Makers:
    """The three parts by name."""
    denoiser = network.denoiser
    modules: dict[str, Callable[[], nn.Module]] = {
        "transformer_head": lambda: HeadGraph(denoiser),
        "transformer_tail": lambda: TailGraph(denoiser),
        "transformer_finish": lambda: FinishGraph(denoiser),
    }
    return makers(network, modules)
