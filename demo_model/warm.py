"""Starts training from the shipped weights, whatever words they know."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from castmate.engines.bundle import Bundle
from demo_model.checkpoint import load_shipped
from demo_model.config import TOON, UNK
from demo_model.tokens import build_tokenizer
from export.families.instantcharacter.network import InstantCharacter

BUNDLE = Path(__file__).parent.parent / "castmate/bundles/toon"
WORDS = (
    "text_encoder.embeddings.token_embedding.weight",
    "text_encoder_2.encoder.embed_tokens.weight",
)
SHARED = "text_encoder_2.shared.weight"
"""T5's other name for the weights of its words."""


def warm_network() -> InstantCharacter:
    """A network with the shipped weights.

    Words keep their meaning, and new words start as the unknown word.
    """
    torch.manual_seed(0)
    network = InstantCharacter(TOON)
    network.load_state_dict(_start())
    return network


@cache
def _start() -> dict[str, Tensor]:
    """The cached weights of `warm_network`, which every stage needs."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = InstantCharacter(TOON).state_dict()
    bundle = Bundle.open(BUNDLE)
    shipped = _shipped()
    before = Tokenizer.from_file(str(bundle.file(bundle.manifest.tokenizers["tokenizer"])))
    for name, weight in state.items():
        if name.startswith("vae.") or name == SHARED:
            continue  # trained on its own, or copied under its other name
        if name in WORDS:
            _copy_words(weight, shipped[name], before)
        else:
            weight.copy_(shipped[name])
    return state


@cache
def shipped_network() -> InstantCharacter:
    """The network of the bundle, read once; callers leave it as it is."""
    return load_shipped(Bundle.open(BUNDLE)).requires_grad_(False)


def _shipped() -> dict[str, Tensor]:
    state: dict[str, Tensor] = shipped_network().state_dict()
    return state


@torch.no_grad()
def copy_equal(module: nn.Module, prefix: str) -> None:
    """Fills a module with the shipped weights of that prefix, wherever they have its shape."""
    for name, weight in module.state_dict().items():
        if (shipped := _shipped()[f"{prefix}{name}"]).shape == weight.shape:
            weight.copy_(shipped)


def _copy_words(weight: Tensor, shipped: Tensor, before: Tokenizer) -> None:
    weight.mul_(0.1).add_(shipped[UNK])
    for word, number in build_tokenizer().get_vocab().items():
        known = before.token_to_id(word)
        if known is not None:
            weight[number] = shipped[known]
