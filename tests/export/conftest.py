"""A network of the real classes at the smallest sizes, and its bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from demo_model.config import TOON
from export.bundle import TokenizerFile, write_bundle
from export.models.config import ModelConfig
from export.models.network import InstantCharacter

# Not square in any count, so that a swapped axis or a wrong index shows.
MICRO: ModelConfig = replace(
    TOON,
    name="micro",
    transformer={**TOON.transformer, "num_layers": 1, "num_single_layers": 2},
    vae={
        **TOON.vae,
        "down_block_types": ("DownEncoderBlock2D",) * 5,
        "up_block_types": ("UpDecoderBlock2D",) * 5,
        "block_out_channels": (8, 8, 8, 8, 16),
        "scaling_factor": 0.7,
        "shift_factor": 0.1,
    },
)


@pytest.fixture(scope="session")
def network() -> InstantCharacter:
    """Random weights with real gains: zero-initialised or tiny branches would hide their errors."""
    torch.manual_seed(0)
    made = InstantCharacter(MICRO).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if name.startswith("subject") and weight.ndim > 1:
                weight.mul_(2)
    return made.half().float()


@pytest.fixture(scope="session")
def bundle_folder(network: InstantCharacter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network, exported as a bundle with fp16 weights."""
    folder = tmp_path_factory.mktemp("bundle") / "micro"
    tokenizer = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.write_text(json.dumps(_letters()))
    spec = TokenizerFile(tokenizer, max_length=MICRO.max_sequence_length, pad_id=0)
    write_bundle(
        network,
        folder,
        description="Random weights.",
        text_encoder=spec,
        text_encoder_2=spec,
        fp16_weights=True,
    )
    return folder


def _letters() -> dict[str, object]:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    ids = {"[PAD]": 0, "[BOS]": 1, "[UNK]": 2, "[EOS]": 3}
    ids |= {chr(code): code for code in range(32, 127)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 1), ("[EOS]", 3)]
    )
    spec: dict[str, object] = json.loads(tokenizer.to_str())
    return spec
