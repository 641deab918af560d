"""Batches that the demo model draws for its own further training: requests and their steps.

They need only the network: no renders, no cached latents, no image encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

import torch
from torch import Tensor

from castmate.engines.bundle import Bundle
from castmate.families.instantcharacter.constants import SchedulerSpec
from castmate.families.instantcharacter.schedule import flow_match_sigmas, rotary_tables
from demo_model.captions import short_caption
from demo_model.characters import random_character
from demo_model.config import MAX_SEQUENCE_LENGTH, PAD, UNK
from demo_model.draw import PictureSpec, draw_reference, random_picture
from demo_model.subjects import crops
from demo_model.warm import BUNDLE, shipped_network
from export.families.instantcharacter.network import InstantCharacter, unpack_latents
from export.samples import Prompts, TokenizerFile

GUIDANCE: Final = 3.5
SUBJECT_SCALE: Final = 0.8
GRIDS: Final = ((8, 8), (8, 8), (8, 8), (16, 16), (12, 8), (8, 12))
"""Rows and columns of tokens; small pictures are cheap."""
CHARACTERS: Final = 64
"""How many a training asks for."""


@dataclass(frozen=True)
class Batch:
    """Requests of one size, encoded.

    Attributes:
        grid: Rows and columns of tokens.
        prompt_embeds: `[B, L, D]`.
        pooled: `[B, E]`.
        features: The subjects' features.
        noise: `[B, S, C]`.
        pictures: What is asked for.
    """

    grid: tuple[int, int]
    prompt_embeds: Tensor
    pooled: Tensor
    features: Tensor
    noise: Tensor
    pictures: Sequence[PictureSpec]


class Requests:
    """Random requests for training characters, as users write them."""

    def __init__(self, network: InstantCharacter, prompts: Prompts, *, count: int) -> None:
        """Encode the characters.

        Args:
            network: Frozen; it draws what is asked for.
            prompts: The tokenizers of its encoders.
            count: How many characters.
        """
        self.network, self._prompts = network, prompts
        rng = Random("characters of requests")
        self._characters = [random_character(rng, held_out=False) for _ in range(count)]
        with torch.no_grad():
            self._features = torch.cat(
                [
                    network.subject_features(crops(draw_reference(spec, 256))[None])
                    for spec in self._characters
                ]
            )

    @classmethod
    def of_shipped(cls, *, count: int) -> Requests:
        """Requests to the shipped network."""
        return cls(shipped_network(), Prompts.of(Bundle.open(BUNDLE)), count=count)

    @classmethod
    def of_trained(cls, network: InstantCharacter, tokenizer: Path, *, count: int) -> Requests:
        """Requests to a trained network, with its tokenizer's file."""
        words = TokenizerFile(tokenizer, MAX_SEQUENCE_LENGTH, PAD, UNK)
        prompts = Prompts.of_files({"tokenizer": words, "tokenizer_2": words})
        return cls(network.requires_grad_(False), prompts, count=count)

    @torch.no_grad()
    def draw(self, rng: Random, count: int, grid: tuple[int, int] | None = None) -> Batch:
        """A batch, of a random size if none is given."""
        network, grid = self.network, grid or rng.choice(GRIDS)
        chosen = [rng.randrange(len(self._characters)) for _ in range(count)]
        pictures = [random_picture(rng, self._characters[number]) for number in chosen]
        texts = [short_caption(picture, rng) for picture in pictures]
        ids = torch.cat([self._prompts.ids(text)["tokenizer_2"] for text in texts])
        first = torch.cat([self._prompts.ids(text)["tokenizer"] for text in texts])
        shape = (count, grid[0] * grid[1], network.config.transformer["in_channels"])
        return Batch(
            grid,
            network.prompt_embeds(ids),
            network.pooled_projections(first),
            self._features[chosen],
            torch.randn(shape, generator=torch.Generator().manual_seed(rng.randrange(2**31))),
            pictures,
        )


def schedule(network: InstantCharacter, steps: int, grid: tuple[int, int]) -> Tensor:
    """The noise levels that the served pipeline takes, with 0 at the end."""
    spec = SchedulerSpec(**network.config.scheduler)
    return torch.from_numpy(flow_match_sigmas(steps, grid[0] * grid[1], spec))


def velocity(network: InstantCharacter, batch: Batch, x: Tensor, sigma: Tensor) -> Tensor:
    """The network's velocity at noise levels `[B]`."""
    config, count = network.config, len(x)
    cos, sin = rotary_tables(
        tuple(config.transformer["axes_dims_rope"]),
        config.max_sequence_length,
        *batch.grid,
        config.rope_square,
    )
    guidance = torch.full((count,), GUIDANCE)
    found: Tensor = network.denoiser(
        x,
        batch.prompt_embeds,
        network.modulation(batch.pooled, guidance, sigma * 1000),
        torch.from_numpy(cos),
        torch.from_numpy(sin),
        network.subject_resampler(batch.features, sigma * 1000),
        torch.full((count, 1, 1), SUBJECT_SCALE),
    )
    return found


@torch.no_grad()
def steps_through(network: InstantCharacter, batch: Batch, x: Tensor, sigmas: Tensor) -> Tensor:
    """Latents at the first noise level to those at the last."""
    for now, following in pairwise(sigmas):
        x = x + (following - now) * velocity(network, batch, x, now.expand(len(x)))
    return x


def decoded(network: InstantCharacter, latents: Tensor, grid: tuple[int, int]) -> Tensor:
    """Packed latents to pictures `[B, 3, H, W]` in -1..1, with a gradient."""
    vae = network.vae
    z = unpack_latents(latents.unflatten(1, grid)) / vae.config["scaling_factor"]
    pixels: Tensor = vae.decoder(z + vae.config["shift_factor"])
    return pixels
