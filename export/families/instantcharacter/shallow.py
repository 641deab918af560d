"""The published network in full width with few blocks, for builds that only measure."""

from __future__ import annotations

from dataclasses import replace

from export.families.instantcharacter.config import ModelConfig

DEPTH = 19
"""Double blocks of the published network; it has twice as many single ones."""


def shallow(config: ModelConfig, blocks: int) -> ModelConfig:
    """So many double blocks, twice as many single ones, and four layers in each encoder."""
    layers = (1, 2, 3)
    return replace(
        config,
        transformer={**config.transformer, "num_layers": blocks, "num_single_layers": 2 * blocks},
        text_encoder={**config.text_encoder, "num_hidden_layers": 2},
        text_encoder_2={**config.text_encoder_2, "num_layers": 2},
        image_encoder={**config.image_encoder, "num_hidden_layers": 4},
        image_encoder_2={**config.image_encoder_2, "num_hidden_layers": 4},
        projector=replace(
            config.projector,
            num_blocks=1,
            image_encoder_layers=layers,
            image_encoder_2_layers=layers,
        ),
        safety_checker={**config.safety_checker, "num_hidden_layers": 2},
    )
