"""Every size of one FLUX + InstantCharacter network; `FLUX` is the published one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from castmate.families.instantcharacter.constants import RopeSquare
from export.precision import Precision

GUIDANCE_EMBEDDER = "time_text_embed.guidance_embedder."
"""How the names of its weights begin in the transformer."""


@dataclass(frozen=True)
class ProjectorConfig:
    """The timestep-independent half of InstantCharacter's `image_proj`.

    Features of both image encoders are concatenated on channels, so the width is the sum of theirs.

    Attributes:
        image_encoder_dim: Width of SigLIP.
        image_encoder_2_dim: Width of DINOv2.
        num_blocks: Blocks in `cross_layer_blocks` and in `cross_scale_blocks`, each.
        attention_head_dim: Head width of these blocks; the heads follow from the width.
        image_encoder_layers: Which of SigLIP's `hidden_states` are the shallow features.
        image_encoder_2_layers: The same for DINOv2.
        crop_px: Side of one crop: the whole reference once at this size, and four quarters of it at
            twice this size.
    """

    image_encoder_dim: int
    image_encoder_2_dim: int
    num_blocks: int
    attention_head_dim: int
    image_encoder_layers: tuple[int, ...]
    image_encoder_2_layers: tuple[int, ...]
    crop_px: int

    @property
    def dim(self) -> int:
        """Channels of a subject feature."""
        return self.image_encoder_dim + self.image_encoder_2_dim


@dataclass(frozen=True)
class ResamplerConfig:
    """The timestep-conditioned half, `image_proj.resampler`: features to subject tokens."""

    dim: int
    depth: int
    dim_head: int
    heads: int
    num_queries: int
    output_dim: int
    ff_mult: int
    timestep_in_dim: int


@dataclass(frozen=True)
class ModelConfig:
    """Arguments of every network class, by diffusers' component names.

    Attributes:
        name: Name of the bundle made from it.
        transformer: Arguments of `diffusers.FluxTransformer2DModel`.
        vae: Arguments of `diffusers.AutoencoderKL`.
        text_encoder: Arguments of `transformers.CLIPTextConfig`.
        text_encoder_2: Arguments of `transformers.T5Config`.
        image_encoder: Arguments of `transformers.SiglipVisionConfig`.
        image_encoder_2: Arguments of `transformers.Dinov2Config`.
        projector: See `ProjectorConfig`.
        resampler: See `ResamplerConfig`.
        safety_checker: Arguments of `transformers.CLIPVisionConfig` for the safety checker's eye.
        scheduler: The four numbers of FLUX's resolution-dependent shift.
        max_sequence_length: Tokens of `text_encoder_2`; shorter prompts are padded without a mask.
        matte: The `image_size` that the matte looks at, and `channels` of a `MatteNet`; without
            these a published network may be put in its place.
        identity: The `image_size` that the identity graph looks at and its `embedding_dim`, and
            `channels` of an `IdentityNet` or, where a published network may be put there, `vit`.
        reference_margins: White above and below the character of a reference, as shares of its
            longer side.
        has_guidance: Whether the published transformer embeds the guidance scale. Where it does not
            (FLUX.1-schnell), ours embeds it as zero, which is the same network.
        rope_square: Where positions are measured; None counts from the picture's corner, as FLUX.
        overflows_in: Precisions whose range is too small for the network.
    """

    name: str
    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    text_encoder_2: Mapping[str, Any]
    image_encoder: Mapping[str, Any]
    image_encoder_2: Mapping[str, Any]
    projector: ProjectorConfig
    resampler: ResamplerConfig
    safety_checker: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    max_sequence_length: int
    matte: Mapping[str, Any]
    identity: Mapping[str, Any]
    reference_margins: tuple[float, float] = (0.0, 0.0)
    has_guidance: bool = True
    rope_square: RopeSquare | None = None
    overflows_in: tuple[Precision, ...] = ()

    @property
    def pixels_per_token(self) -> int:
        """Side of the square of pixels that one packed latent stands for."""
        return int(2 ** len(self.vae["block_out_channels"]))


FLUX = ModelConfig(
    name="flux",
    transformer={
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": True,
        "axes_dims_rope": (16, 56, 56),
    },
    vae={
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "latent_channels": 16,
        "norm_num_groups": 32,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
    },
    text_encoder={
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "projection_dim": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
    text_encoder_2={
        "vocab_size": 32128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "relative_attention_num_buckets": 32,
        "feed_forward_proj": "gated-gelu",
        "pad_token_id": 0,
        "eos_token_id": 1,
    },
    image_encoder={
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
        "hidden_act": "gelu_pytorch_tanh",
    },
    image_encoder_2={
        "hidden_size": 1536,
        "num_hidden_layers": 40,
        "num_attention_heads": 24,
        "mlp_ratio": 4,
        "image_size": 518,
        "patch_size": 14,
        "use_swiglu_ffn": True,
    },
    projector=ProjectorConfig(
        image_encoder_dim=1152,
        image_encoder_2_dim=1536,
        num_blocks=4,
        attention_head_dim=64,
        image_encoder_layers=(7, 13, 26),
        image_encoder_2_layers=(9, 19, 29),
        crop_px=384,
    ),
    resampler=ResamplerConfig(
        dim=1280,
        depth=4,
        dim_head=64,
        heads=20,
        num_queries=1024,
        output_dim=4096,
        ff_mult=4,
        timestep_in_dim=320,
    ),
    safety_checker={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
        "projection_dim": 768,
    },
    scheduler={
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
        "base_shift": 0.5,
        "max_shift": 1.15,
    },
    max_sequence_length=512,
    matte={"image_size": 1024},
    identity={
        "image_size": 224,
        "embedding_dim": 384,
        "vit": {
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
            "image_size": 224,
            "patch_size": 16,
            "layer_norm_eps": 1e-12,
        },
    },
    overflows_in=(Precision.FP16,),  # in the residual stream
)
