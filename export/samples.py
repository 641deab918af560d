"""The pictures that calibration and verification draw, and prompts as the encoders see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from castmate.defaults import Defaults
from castmate.engines.bundle import Bundle
from castmate.pipeline.tokenizer import PromptTokenizer

REFERENCES = Path(__file__).parent.parent / "castmate/bundles/toon/references"
PROMPTS = (
    "the character is waving on a beach",
    "the character is running in a neon city at night",
    "the character is sitting in a forest with trees",
    "the character is jumping in space",
    "the character is standing in a room, close-up portrait, soft window light",
    "the character is waving in the snow, wide shot",
    "the character is running in a desert under a blue sky",
    "the character is standing on a plain background, full body",
)
"""Ours; each goes with the next reference and the next seed."""


@dataclass(frozen=True)
class Sample:
    """One picture to draw.

    Attributes:
        prompt: Text.
        reference: The character.
        seed: Of the noise.
        width: Pixels.
        height: Pixels.
        guidance_scale: Distilled guidance.
        subject_scale: Strength of the subject.
    """

    prompt: str
    reference: Path
    seed: int
    width: int = 1024
    height: int = 1024
    guidance_scale: float = 3.5
    subject_scale: float = 0.8


def samples(
    count: int, side: int, *, first_seed: int = 0, defaults: Defaults | None = None
) -> list[Sample]:
    """The first of the shipped prompts and references, in a fixed order.

    Args:
        count: How many.
        side: Pixels of their square pictures.
        first_seed: Of the first one, which also chooses its prompt and reference.
        defaults: What the model takes by default, so that it is drawn as it will be.
    """
    strengths = defaults.model_dump(include={"guidance_scale", "subject_scale"}) if defaults else {}
    references = sorted(REFERENCES.glob("*.png"))
    if not references:
        raise FileNotFoundError(f"no references in {REFERENCES}")
    return [
        Sample(
            PROMPTS[(first_seed + i) % len(PROMPTS)],
            references[(first_seed + i) % len(references)],
            seed=first_seed + i,
            width=side,
            height=side,
            **strengths,
        )
        for i in range(count)
    ]


@dataclass(frozen=True)
class TokenizerFile:
    """A `tokenizers` JSON file and how its encoder wants prompts."""

    path: Path
    max_length: int
    pad_id: int
    unk_id: int | None = None


class Prompts:
    """Prompts to token ids, one tokenizer an encoder, exactly as the served pipeline makes them."""

    def __init__(self, tokenizers: Mapping[str, PromptTokenizer]) -> None:
        self._tokenizers = tokenizers

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """With the tokenizers of a bundle."""
        names = bundle.manifest.tokenizers
        return cls({name: PromptTokenizer.of(bundle, name) for name in names})

    @classmethod
    def of_files(cls, tokenizers: Mapping[str, TokenizerFile]) -> Self:
        """With tokenizers that are in no bundle yet."""
        return cls(
            {
                name: PromptTokenizer(file.path, file.max_length, file.pad_id, file.unk_id)
                for name, file in tokenizers.items()
            }
        )

    def ids(self, prompt: str) -> dict[str, Tensor]:
        """Token ids `[1, L]` by the name of the tokenizer."""
        return {
            name: torch.from_numpy(tokenizer.ids([prompt]))
            for name, tokenizer in self._tokenizers.items()
        }
