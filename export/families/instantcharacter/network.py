"""The whole network, component by component, under diffusers' names."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPTextConfig,
    CLIPTextModel,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
)

from castmate.families.instantcharacter.graphs import OPTIONAL
from export.families.instantcharacter.config import ModelConfig
from export.families.instantcharacter.denoiser import Denoiser
from export.families.instantcharacter.identity import Identity, IdentityNet
from export.families.instantcharacter.image_encoder import CropEncoder
from export.families.instantcharacter.matte import Matte, MatteNet
from export.families.instantcharacter.modulation import Modulation
from export.families.instantcharacter.projector import SubjectProjector
from export.families.instantcharacter.resampler import SubjectResampler
from export.families.instantcharacter.subject_attention import attach_subject_attention
from export.family import Network


class InstantCharacter(Network):
    """FLUX.1-dev with InstantCharacter's adapter at the sizes of a `ModelConfig`, weights random.

    `state_dict()` holds the weights of each component under its name; `denoiser`, `modulation` and
    the crop encoders are views of the same weights and add nothing to it.
    """

    family = "instantcharacter"
    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.text_encoder = CLIPTextModel(CLIPTextConfig(**config.text_encoder))
        self.text_encoder_2 = T5EncoderModel(T5Config(**config.text_encoder_2))
        self.image_encoder = SiglipVisionModel(
            SiglipVisionConfig(**config.image_encoder, vision_use_head=False)
        )
        self.image_encoder_2 = Dinov2Model(Dinov2Config(**config.image_encoder_2))
        self.subject_projector = SubjectProjector(config.projector)
        self.subject_resampler = SubjectResampler(config.resampler, config.projector.dim)
        self.transformer = FluxTransformer2DModel(**config.transformer)
        self.subject_attention = attach_subject_attention(
            self.transformer, config.resampler.num_queries, config.resampler.output_dim
        )
        self.vae = AutoencoderKL(**config.vae)
        vision = dict(config.safety_checker)
        self.safety_checker = StableDiffusionSafetyChecker(
            CLIPConfig(vision_config=vision, projection_dim=vision["projection_dim"])
        )
        channels = config.matte.get("channels")
        self.matte: Matte | None = MatteNet(channels) if channels else None
        channels = config.identity.get("channels")
        self.identity: Identity | None = (
            IdentityNet(channels, config.identity["embedding_dim"]) if channels else None
        )

    @property
    def optional_graphs(self) -> frozenset[str]:
        """Which of the graphs that a bundle need not have this one has."""
        return frozenset(name for name in OPTIONAL if getattr(self, name) is not None)

    @property
    def denoiser(self) -> Denoiser:
        """One velocity prediction of `transformer` with `subject_attention`."""
        return Denoiser(self.transformer, self.subject_attention)

    @property
    def modulation(self) -> Modulation:
        """What `denoiser` takes of `transformer` that does not depend on the latents."""
        return Modulation(self.transformer)

    @property
    def crop_encoders(self) -> tuple[CropEncoder, CropEncoder]:
        """`image_encoder` and `image_encoder_2` as readers of a reference's five crops."""
        projector = self.config.projector
        return (
            CropEncoder(self.image_encoder, projector.image_encoder_layers),
            CropEncoder(self.image_encoder_2, projector.image_encoder_2_layers),
        )

    def subject_features(self, crops: Tensor) -> Tensor:
        """Everything of a reference that no timestep changes.

        Args:
            crops: `[B, 5, s, s, 3]` uint8, see `CropEncoder`.

        Returns:
            `[B, 2n, c]`, the input of `subject_resampler`.
        """
        first, second = self.crop_encoders
        features: Tensor = self.subject_projector(first(crops) + second(crops))
        return features

    def pooled_projections(self, input_ids: Tensor) -> Tensor:
        """`[B, text_encoder tokens]` ids to CLIP's pooled output `[B, pooled_projection_dim]`."""
        pooled: Tensor = self.text_encoder(input_ids).pooler_output
        return pooled

    def prompt_embeds(self, input_ids: Tensor) -> Tensor:
        """`[B, L]` ids to T5's `[B, L, joint_attention_dim]`; padding is not masked, as in FLUX."""
        embeds: Tensor = self.text_encoder_2(input_ids).last_hidden_state
        return embeds


def pack_latents(latents: Tensor) -> Tensor:
    """VAE latents `[B, C, 2h, 2w]` to packed latents on their grid `[B, h, w, 4C]`."""
    batch, channels, height, width = latents.shape
    cells = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(3)


def unpack_latents(latents: Tensor) -> Tensor:
    """The inverse of `pack_latents`."""
    cells = latents.unflatten(3, (-1, 2, 2)).permute(0, 3, 1, 4, 2, 5)
    return cells.flatten(4, 5).flatten(2, 3)


def rotary_embedding(
    axes_dim: tuple[int, int, int], num_text_tokens: int, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """diffusers' own RoPE tables for training and parity: cos and sin, `[L + height * width, D]`.

    Args:
        axes_dim: `axes_dims_rope` of the transformer.
        num_text_tokens: L; text positions are all zero.
        height: Rows of packed latents.
        width: Columns of packed latents.
    """
    from diffusers.models.transformers.transformer_flux import FluxPosEmbed

    ids = torch.zeros(height, width, 3)
    ids[..., 1] = torch.arange(height)[:, None]
    ids[..., 2] = torch.arange(width)[None, :]
    text = torch.zeros(num_text_tokens, 3)
    cos, sin = FluxPosEmbed(10000, list(axes_dim))(torch.cat([text, ids.flatten(0, 1)]))
    return cos.float(), sin.float()
