"""The sizes of `toon`: the real network classes, small enough to ship and to train on a CPU."""

from castmate.families.instantcharacter.constants import RopeSquare
from export.families.instantcharacter.config import ModelConfig, ProjectorConfig, ResamplerConfig

MAX_SEQUENCE_LENGTH = 40
VOCABULARY_SIZE = 1024
# EOS is not CLIP's historic 2: with that id transformers pools at the largest token id instead.
PAD, BOS, UNK, EOS = 0, 1, 2, 3

TOON = ModelConfig(
    name="toon",
    transformer={
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 2,
        "num_single_layers": 4,
        "attention_head_dim": 32,
        "num_attention_heads": 5,
        "joint_attention_dim": 96,
        "pooled_projection_dim": 64,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 14, 14),
    },
    vae={
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * 6,
        "up_block_types": ("UpDecoderBlock2D",) * 6,
        "block_out_channels": (8, 16, 40, 64, 96, 96),
        "layers_per_block": 1,
        "latent_channels": 16,
        "norm_num_groups": 1,
        "mid_block_add_attention": False,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
    },
    text_encoder={
        "vocab_size": VOCABULARY_SIZE,
        "hidden_size": 64,
        "intermediate_size": 256,
        "projection_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": MAX_SEQUENCE_LENGTH,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
    },
    text_encoder_2={
        "vocab_size": VOCABULARY_SIZE,
        "d_model": 96,
        "d_kv": 32,
        "d_ff": 256,
        "num_layers": 2,
        "num_heads": 3,
        "relative_attention_num_buckets": 32,
        "feed_forward_proj": "gated-gelu",
        "pad_token_id": PAD,
        "eos_token_id": EOS,
    },
    image_encoder={
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": 128,
        "patch_size": 16,
    },
    image_encoder_2={
        "hidden_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "mlp_ratio": 3,
        "image_size": 128,
        "patch_size": 16,
    },
    projector=ProjectorConfig(
        image_encoder_dim=96,
        image_encoder_2_dim=96,
        num_blocks=1,
        attention_head_dim=64,
        image_encoder_layers=(1, 2, 3),
        image_encoder_2_layers=(1, 2, 3),
        crop_px=128,
    ),
    resampler=ResamplerConfig(
        dim=96,
        depth=2,
        dim_head=32,
        heads=3,
        num_queries=16,
        output_dim=96,
        ff_mult=2,
        timestep_in_dim=64,
    ),
    safety_checker={
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 64,
        "patch_size": 8,
        "projection_dim": 16,
    },
    matte={"channels": (12, 20, 32, 48, 64), "image_size": 128},
    identity={"channels": (24, 48, 72, 96), "embedding_dim": 64, "image_size": 96},
    scheduler={
        "base_image_seq_len": 16,
        "max_image_seq_len": 256,
        "base_shift": 0.5,
        "max_shift": 1.15,
    },
    max_sequence_length=MAX_SEQUENCE_LENGTH,
    # `draw_reference` puts a character on a square of which it takes 0.93 (median), its feet on the
    # lower edge. Centred instead, characters lose 0.04 of their identity.
    reference_margins=(0.07, 0.01),
    # Positions are measured in the square in which `demo_model.draw` places a figure: counted from
    # the corner of the picture, every size would have to be learned separately.
    rope_square=RopeSquare(units=8, above=0.85),
)
