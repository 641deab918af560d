"""Denoise trajectories of the torch network: what calibration records and verification compares.

The same noise, schedule, RoPE tables, framing and step as the served pipeline, so that ranges and
pictures are those that users get.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from castmate.engines.bundle import Bundle, SchedulerSpec
from castmate.families.instantcharacter.schedule import flow_match_sigmas, rotary_tables
from castmate.families.instantcharacter.subject import reference_crops
from castmate.pipeline.noise import gaussian_noise
from export.families.instantcharacter.graphs import TransformerGraph, VaeDecoderGraph
from export.families.instantcharacter.network import InstantCharacter

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


def samples(count: int, side: int, *, first_seed: int = 0) -> list[Sample]:
    """The first of the shipped prompts and references, in a fixed order."""
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
        )
        for i in range(count)
    ]


class Prompts:
    """Both tokenizers, padded as the encoders were trained."""

    def __init__(self, text_encoder: Path, text_encoder_2: Path, lengths: tuple[int, int]) -> None:
        """Read the tokenizers.

        Args:
            text_encoder: CLIP's `tokenizers` file.
            text_encoder_2: T5's.
            lengths: Tokens that each encoder sees.
        """
        self._tokenizers = []
        for path, length in zip((text_encoder, text_encoder_2), lengths, strict=True):
            tokenizer = Tokenizer.from_file(str(path))
            padding = tokenizer.padding or {}
            tokenizer.enable_truncation(length)
            tokenizer.enable_padding(length=length, pad_id=padding.get("pad_id", 0))
            self._tokenizers.append(tokenizer)

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """The tokenizers of a bundle."""
        first, second = bundle.manifest.text_encoder, bundle.manifest.text_encoder_2
        return cls(bundle.file(first), bundle.file(second), (first.max_length, second.max_length))

    def ids(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Token ids `[1, L]` for each encoder."""
        first, second = (torch.tensor([t.encode(prompt).ids]) for t in self._tokenizers)
        return first, second


OnStep = Callable[[int], None]


@torch.no_grad()
def denoise(
    network: InstantCharacter,
    sample: Sample,
    prompts: Prompts,
    steps: int,
    on_step: OnStep = lambda step: None,
) -> Tensor:
    """Draw a sample's latents.

    Args:
        network: On any device, in any dtype.
        sample: What to draw.
        prompts: The tokenizers.
        steps: Denoise steps.
        on_step: Called before each step with its number.

    Returns:
        Packed latents `[1, h, w, 4C]`, fp32.
    """
    config, denoiser = network.config, network.denoiser
    dtype, device = denoiser.dtype, next(network.transformer.parameters()).device
    rows, columns = (-(-side // config.pixels_per_token) for side in (sample.height, sample.width))
    sigmas = flow_match_sigmas(steps, rows * columns, SchedulerSpec(**config.scheduler))
    image = Image.open(sample.reference).convert("RGB")
    crops = torch.from_numpy(reference_crops(image, config.projector.crop_px)).to(device)
    ids, ids_2 = (x.to(device) for x in prompts.ids(sample.prompt))
    axes = tuple(network.transformer.config.axes_dims_rope)
    rotary = rotary_tables(axes, config.max_sequence_length, rows, columns)

    def put(values: np.ndarray | list[float]) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device)

    conditions = {
        "sigmas": put(sigmas),
        "guidance": put([sample.guidance_scale]),
        "true_cfg_scale": put([1.0]),
        "prompt_embeds": network.prompt_embeds(ids_2).to(dtype),
        "pooled_projections": network.pooled_projections(ids).to(dtype),
        "subject_embeds": network.subject_resampler(
            network.subject_features(crops), put(sigmas[:-1] * np.float32(1000))
        ),
        "subject_scale": put([sample.subject_scale]),
        "rotary_emb_cos": put(rotary[0]),
        "rotary_emb_sin": put(rotary[1]),
    }
    channels = network.transformer.config.in_channels
    latents = put(gaussian_noise(sample.seed, (1, rows, columns, channels)))
    graph = TransformerGraph(denoiser).eval()
    for step in range(steps):
        on_step(step)
        latents = graph(latents, torch.tensor([step], device=device), **conditions)
    return latents


@torch.no_grad()
def decode(network: InstantCharacter, latents: Tensor) -> np.ndarray:
    """Packed latents `[1, h, w, 4C]` to a picture `[H, W, 3]` uint8."""
    picture: np.ndarray = VaeDecoderGraph(network.vae).eval()(latents)[0].cpu().numpy()
    return picture
