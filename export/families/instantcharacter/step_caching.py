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
from export.families.instantcharacter.blocks import Shared
from export.families.instantcharacter.denoiser import Denoiser
from export.families.instantcharacter.graphs import (
    euler_step,
    export_graphs,
    image_rows,
    makers,
    text_rows,
)
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.style_layers import FINISH, HEAD, TAIL, branches_of
from export.graphs import Makers
from export.lora.branches import NO_BRANCHES, Branches

FLUX_STEP_CACHING = StepCachingSpec(
    balanced=0.08,
    fast=0.12,
    chosen_on="FLUX.1-dev without an adapter, as published by ParaAttention; to be chosen again "
    "for this model: python -m benchmarks.quality",
)


class HeadGraph(nn.Module):
    """Embedders, the first double block, and the measure of change."""

    def __init__(self, denoiser: Denoiser, branches: Branches = NO_BRANCHES) -> None:
        super().__init__()
        self.denoiser, self.branches = denoiser, branches

    def forward(
        self,
        latents: Tensor,
        step: Tensor,
        prompt_embeds: Tensor,
        modulation: Tensor,
        subject_embeds: Tensor,
        subject_scale: Tensor,
        rotary_emb_cos: Tensor,
        rotary_emb_sin: Tensor,
        previous_head_residual: Tensor,
        style_factors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run the first block.

        `head_residual` is what the block added to the image tokens, and `change` the mean absolute
        difference from `previous_head_residual`, that of the last computed step, relative to the
        mean magnitude of that. Zeros make it infinite, so that the first step is computed.
        """
        denoiser, batch = self.denoiser, latents.shape[0]
        with self.branches.with_factors(style_factors):
            before, text = denoiser.embed(
                image_rows(latents, prompt_embeds.shape[0]).to(denoiser.dtype),
                text_rows(prompt_embeds, batch),
            )
            image, text = denoiser.double_blocks(
                slice(1),
                before,
                text,
                text_rows(modulation.index_select(0, step)[0], batch),
                Shared(
                    (rotary_emb_cos, rotary_emb_sin),
                    subject_embeds.index_select(0, step),
                    subject_scale.to(denoiser.dtype),
                ),
            )
        residual = image.float() - before.float()
        difference = (residual - previous_head_residual).abs().mean()
        change = (difference / previous_head_residual.abs().mean()).reshape(1)
        return image, text, residual, change


class TailGraph(nn.Module):
    """All blocks but the first; `tail_residual` is what they add to the image tokens."""

    def __init__(self, denoiser: Denoiser, branches: Branches = NO_BRANCHES) -> None:
        super().__init__()
        self.denoiser, self.branches = denoiser, branches

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        step: Tensor,
        modulation: Tensor,
        subject_embeds: Tensor,
        subject_scale: Tensor,
        rotary_emb_cos: Tensor,
        rotary_emb_sin: Tensor,
        style_factors: Tensor | None = None,
    ) -> Tensor:
        denoiser, passes = self.denoiser, modulation.shape[1]
        row = text_rows(modulation.index_select(0, step)[0], hidden_states.shape[0] // passes)
        shared = Shared(
            (rotary_emb_cos, rotary_emb_sin),
            subject_embeds.index_select(0, step),
            subject_scale.to(denoiser.dtype),
        )
        with self.branches.with_factors(style_factors):
            image, text = denoiser.double_blocks(
                slice(1, None), hidden_states, encoder_hidden_states, row, shared
            )
            return denoiser.single_blocks(image, text, row, shared) - hidden_states


class FinishGraph(nn.Module):
    """Projection, true-CFG mix and Euler update: `next_latents` as in `TransformerGraph`."""

    def __init__(self, denoiser: Denoiser, branches: Branches = NO_BRANCHES) -> None:
        super().__init__()
        self.denoiser, self.branches = denoiser, branches

    def forward(
        self,
        latents: Tensor,
        step: Tensor,
        sigmas: Tensor,
        true_cfg_scale: Tensor,
        hidden_states: Tensor,
        tail_residual: Tensor,
        modulation: Tensor,
        style_factors: Tensor | None = None,
    ) -> Tensor:
        row = text_rows(modulation.index_select(0, step)[0], latents.shape[0])
        with self.branches.with_factors(style_factors):
            velocity = self.denoiser.project(hidden_states + tail_residual, row)
        return euler_step(latents, velocity, step, sigmas, true_cfg_scale)


def bundle_graphs(network: InstantCharacter, *, step_caching: bool) -> Makers:
    """Every graph of a bundle by name, the transformer whole or in its three parts."""
    every = {**export_graphs(network), **step_caching_graphs(network)}
    return {
        name: every[name]
        for name in graph_names(step_caching=step_caching, optional=network.optional_graphs)
    }


def step_caching_graphs(network: InstantCharacter) -> Makers:
    """The three parts by name."""
    denoiser = network.denoiser
    modules: dict[str, Callable[[], nn.Module]] = {
        HEAD: lambda: HeadGraph(denoiser, branches_of(network, HEAD)),
        TAIL: lambda: TailGraph(denoiser, branches_of(network, TAIL)),
        FINISH: lambda: FinishGraph(denoiser, branches_of(network, FINISH)),
    }
    return makers(network, modules)
