"""Draws pictures with the torch network: the reference loop of evaluation, not what is served."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from demo_model.config import MAX_SEQUENCE_LENGTH, TOON
from demo_model.flow import PX_PER_TOKEN, SUBJECT_SCALE, Batch, FlowModel, sigmas
from demo_model.tokens import build_tokenizer, encode
from export.models.network import InstantCharacter, rotary_embedding, unpack_latents


@torch.no_grad()
def draw_samples(
    network: InstantCharacter,
    prompts: list[str],
    features: Tensor | None,
    *,
    width: int = 512,
    height: int = 512,
    steps: int = 28,
    guidance_scale: float = 3.5,
    true_cfg_scale: float = 1.0,
    negative_prompt: str = "",
    subject_scale: float = SUBJECT_SCALE,
    seed: int = 0,
) -> Tensor:
    """Generates one picture a prompt.

    Args:
        network: Trained weights.
        prompts: One a picture.
        features: Subject features `[B, F, c]`, or None for no reference.
        width: Of each picture, in pixels.
        height: Likewise.
        steps: Denoising steps.
        guidance_scale: Value of the guidance input.
        true_cfg_scale: With more than 1, a second pass with the negative prompt.
        negative_prompt: What the second pass reads; it keeps the subject.
        subject_scale: Strength of the subject branch.
        seed: Of the noise.

    Returns:
        uint8 `[B, height, width, 3]`.
    """
    model = FlowModel(network).eval()
    tokenizer = build_tokenizer()
    rows, columns = height // PX_PER_TOKEN, width // PX_PER_TOKEN
    count = len(prompts)
    if features is None:
        features = torch.zeros(count, 2 * (TOON.projector.crop_px // 16) ** 2, TOON.projector.dim)
        subject_scale = 0.0
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, rows * columns, 64, generator=generator)
    batch = Batch(
        latents=x,
        ids=encode(tokenizer, prompts),
        features=features,
        subject_scale=torch.full((count, 1, 1), subject_scale),
        rotary=rotary_embedding(
            TOON.transformer["axes_dims_rope"], MAX_SEQUENCE_LENGTH, rows, columns
        ),
    )
    negative = replace(batch, ids=encode(tokenizer, [negative_prompt] * count))
    guidance = torch.full((count,), guidance_scale)
    schedule = sigmas(steps, rows * columns)
    for sigma, following in itertools.pairwise(schedule):
        level = torch.full((count,), sigma)
        velocity = model.velocity(x, level, guidance, batch)
        if true_cfg_scale > 1:
            against = model.velocity(x, level, guidance, negative)
            velocity = against + true_cfg_scale * (velocity - against)
        x = x + (following - sigma) * velocity
    return decode_latents(network, x.unflatten(1, (rows, columns)))


@torch.no_grad()
def decode_latents(network: InstantCharacter, packed: Tensor) -> Tensor:
    """Packed latents `[B, h, w, 64]` to uint8 pictures."""
    config = network.vae.config
    latents = unpack_latents(packed) / config["scaling_factor"] + config["shift_factor"]
    pictures = [network.vae.decode(latents[i : i + 1]).sample for i in range(len(latents))]
    pixels = (torch.cat(pictures) * 127.5 + 127.5).round().clamp(0, 255)
    return pixels.permute(0, 2, 3, 1).to(torch.uint8)


def to_images(pixels: Tensor) -> list[Image.Image]:
    """uint8 `[B, h, w, 3]` to Pillow images."""
    return [Image.fromarray(picture.numpy()) for picture in pixels]
