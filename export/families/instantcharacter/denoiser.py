"""FLUX's transformer with the subject branch in every block: one velocity prediction."""

from __future__ import annotations

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn


class Denoiser(nn.Module):
    """Runs the blocks of a `FluxTransformer2DModel` itself, so that RoPE tables come in as tensors.

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
        pooled_projections: Tensor,
        timestep: Tensor,
        guidance: Tensor,
        rotary_emb_cos: Tensor,
        rotary_emb_sin: Tensor,
        subject_embeds: Tensor | None = None,
        subject_scale: Tensor | float = 1.0,
    ) -> Tensor:
        """Predict the velocity `noise - image`.

        Args:
            hidden_states: `[B, S, 64]`, packed latents.
            encoder_hidden_states: `[B, L, joint_attention_dim]`, T5's `prompt_embeds`.
            pooled_projections: `[B, pooled_projection_dim]`, CLIP's pooled output.
            timestep: `[B]`, sigma in 0..1.
            guidance: `[B]`, the guidance scale.
            rotary_emb_cos: `[L + S, head_dim]` fp32, text rows first.
            rotary_emb_sin: Likewise.
            subject_embeds: `[B or 1, N, token_dim]`, the subject tokens of this timestep.
            subject_scale: Broadcastable to `[B, 1, 1]`; 0 equals no subject.

        Returns:
            `[B, S, 64]`.
        """
        image, text, temb = self.embed(
            hidden_states, encoder_hidden_states, pooled_projections, timestep, guidance
        )
        image, _ = self.run(
            slice(None),
            image,
            text,
            temb,
            (rotary_emb_cos, rotary_emb_sin),
            subject_embeds,
            subject_scale,
        )
        return self.project(image, temb)

    def embed(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        guidance: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Everything before the first block: image tokens, text tokens and modulation input.

        Timestep and guidance stay fp32 until they are sines: diffusers rounds them to the dtype of
        the weights first, which in bf16 moves a timestep by up to 2 of 1000.
        """
        model = self.transformer
        image = model.x_embedder(hidden_states)
        text = model.context_embedder(encoder_hidden_states)
        temb = model.time_text_embed(
            timestep.float() * 1000, guidance.float() * 1000, pooled_projections
        )
        return image, text, temb

    def run(
        self,
        part: slice,
        image: Tensor,
        text: Tensor,
        temb: Tensor,
        rotary_emb: tuple[Tensor, Tensor],
        subject_embeds: Tensor | None,
        subject_scale: Tensor | float,
    ) -> tuple[Tensor, Tensor]:
        """Some of the blocks, double ones first, on image and text tokens."""
        model = self.transformer
        subject = {
            "subject_embeds": subject_embeds,
            "subject_scale": subject_scale,
            "num_text_tokens": text.shape[1],
        }
        for block in [*model.transformer_blocks, *model.single_transformer_blocks][part]:
            text, image = block(
                hidden_states=image,
                encoder_hidden_states=text,
                temb=temb,
                image_rotary_emb=rotary_emb,
                joint_attention_kwargs=subject,
            )
        return image, text

    def project(self, image: Tensor, temb: Tensor) -> Tensor:
        """Everything after the last block: image tokens to the velocity."""
        velocity: Tensor = self.transformer.proj_out(self.transformer.norm_out(image, temb))
        return velocity

    @property
    def dtype(self) -> torch.dtype:
        """Of the unquantized weights and of the arithmetic."""
        dtype: torch.dtype = self.transformer.x_embedder.weight.dtype
        return dtype
