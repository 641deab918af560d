"""Bytes of the published files that are read, counted from the sizes of the networks in them."""

from __future__ import annotations

import torch
from torch import nn
from transformers import SiglipConfig, SiglipModel

from export.families.instantcharacter.config import ModelConfig
from export.families.instantcharacter.dino import DinoIdentity
from export.families.instantcharacter.network import InstantCharacter
from export.family import Download

SIGLIP_TEXT = {
    "vocab_size": 32000,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
"""SigLIP's other half: it lies in the same file and is not used."""


def downloads(config: ModelConfig) -> dict[str, Download]:
    """By the names of the sources: FLUX and the adapter are published in bf16, the rest in fp32."""
    with torch.device("meta"):
        network = InstantCharacter(config)
        dino = DinoIdentity(config.identity["vit"]) if "vit" in config.identity else None
        siglip = SiglipModel(
            SiglipConfig(vision_config=dict(config.image_encoder), text_config=SIGLIP_TEXT)
        )

    def count(*modules: nn.Module) -> int:
        return sum(weight.numel() for module in modules for weight in module.parameters())

    flux = (network.transformer, network.vae, network.text_encoder, network.text_encoder_2)
    adapter = (network.subject_attention, network.subject_projector, network.subject_resampler)
    return {
        "flux": Download(count(*flux), 2),
        "adapter": Download(count(*adapter), 2),
        "image_encoder": Download(count(siglip), 4),
        "image_encoder_2": Download(count(network.image_encoder_2), 4),
        "safety_checker": Download(count(network.safety_checker), 4),
        **({"identity": Download(count(dino), 4)} if dino else {}),
    }
