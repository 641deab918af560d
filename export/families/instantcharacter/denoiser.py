"""FLUX's transformer with the subject branch in every block: one velocity prediction."""

from __future__ import annotations

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from export.families.instantcharacter.blocks import Shared, double_block, modulated, single_block
from export.families.instantcharacter.modulation import sections


class Denoiser(nn.Module):
    """Runs the blocks of a `FluxTransformer2DModel` on modulations and RoPE tables that are given.

    Equal to `FluxTransformer2DModel.forward` with the subject tensors in `joint_attention_kwargs`,
    without its float64 RoPE, LoRA scaling and ControlNet branches, which do not belong in a graph.
    """

    def __init__(
        self, transformer: FluxTransformer2DModel, subject_attention: nn.ModuleList
    ) -> None:
        """Wrap a transformer.

        Args:
            transformer: With subject processors in every block.
            subject_attention: The branches that these processors hold; named here, so that they are
                exported and quantized as parts of the module.
        """
        super().__init__()
        self.transformer = transformer
        self.subject_attention = subject_attention

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        modulation: Tensor,
        rotary_emb_cos: Tensor,
        rotary_emb_sin: Tensor,
        subject_embeds: Tensor | None = None,
        subject_scale: Tensor | float = 1.0,
    ) -> Tensor:
        """Predict the velocity `noise - image`.

        Args:
            hidden_states: `[B, S, 64]`, packed latents.
            encoder_hidden_states: `[B, L, joint_attention_dim]`, T5's `prompt_embeds`.
            modulation: `[B, A]`, see `Modulation`.
            rotary_emb_cos: `[L + S, head_dim]` fp32, text rows first.
            rotary_emb_sin: Likewise.
            subject_embeds: `[B or 1, N, token_dim]`, the subject tokens of this timestep.
            subject_scale: Broadcastable to `[B, 1, 1]`; 0 equals no subject.

        Returns:
            `[B, S, 64]`.
        """
        shared = Shared((rotary_emb_cos, rotary_emb_sin), subject_embeds, subject_scale)
        image, text = self.embed(hidden_states, encoder_hidden_states)
        image, text = self.double_blocks(slice(None), image, text, modulation, shared)
        return self.project(self.single_blocks(image, text, modulation, shared), modulation)

    def embed(self, hidden_states: Tensor, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Everything before the first block: image and text tokens."""
        model = self.transformer
        return model.x_embedder(hidden_states), model.context_embedder(encoder_hidden_states)

    def double_blocks(
        self, part: slice, image: Tensor, text: Tensor, modulation: Tensor, shared: Shared
    ) -> tuple[Tensor, Tensor]:
        """Some of the double blocks on image and text tokens."""
        given = sections(self.transformer, modulation).double
        blocks = zip(self.transformer.transformer_blocks, given, strict=True)
        for block, values in list(blocks)[part]:
            image, text = double_block(block, image, text, values, shared)
        return image, text

    def single_blocks(
        self, image: Tensor, text: Tensor, modulation: Tensor, shared: Shared
    ) -> Tensor:
        """All single blocks; returns the image tokens."""
        joint, length = torch.cat([text, image], dim=1), text.shape[1]
        given = sections(self.transformer, modulation).single
        for block, values in zip(self.transformer.single_transformer_blocks, given, strict=True):
            joint = single_block(block, joint, length, values, shared)
        return joint[:, length:]

    def project(self, image: Tensor, modulation: Tensor) -> Tensor:
        """Everything after the last block: image tokens to the velocity."""
        model = self.transformer
        scale, shift = sections(model, modulation).out.chunk(2, dim=-1)
        velocity: Tensor = model.proj_out(modulated(model.norm_out.norm, image, shift, scale))
        return velocity

    @property
    def dtype(self) -> torch.dtype:
        """Of the unquantized weights and of the arithmetic."""
        dtype: torch.dtype = self.transformer.x_embedder.weight.dtype
        return dtype
