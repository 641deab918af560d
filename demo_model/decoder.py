"""Trains the decoder that ships: narrow where pictures are large, on latents of a fixed encoder.

Most of a decoder's time goes into its outer levels, so these have 8 and 16 channels where the
encoder has 16 and 24. What has the shape of the shipped decoder starts from its weights.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import Decoder
from torch import Tensor

from demo_model.autoencoder import (
    encode_half,
    load_autoencoder,
    picture_loss,
    psnr,
    training_pixels,
)
from demo_model.config import TOON
from demo_model.optimizers import Muon, split_parameters
from demo_model.training import Budget, Loop, load_averaged
from demo_model.warm import copy_equal

DECODER, REPAIRED = "decoder", "repaired"
NOISE = 0.15
"""Largest standard deviation of the noise on latents, in units of theirs: what the transformer
draws is a little off, and should still have sharp edges."""


def new_decoder() -> Decoder:
    """The shipped weights, wherever a layer still has its shape."""
    torch.manual_seed(0)
    decoder = AutoencoderKL(**TOON.vae).decoder
    copy_equal(decoder, "vae.decoder.")
    return decoder.to(memory_format=torch.channels_last)


def train_decoder(budget: Budget, folder: Path) -> None:
    """Learns to draw the picture whose latents it gets."""
    vae = load_autoencoder(folder).requires_grad_(False).to(budget.device)
    decoder = new_decoder().to(budget.device)
    matrices, others = split_parameters(decoder.named_parameters())
    optimizers = [Muon(matrices, lr=0.008), torch.optim.AdamW(others, lr=2e-3, weight_decay=0.0)]
    loop = Loop(DECODER, decoder, optimizers, budget, folder, ema=0.998)
    for tick in loop:
        target = training_pixels(tick.rng).to(budget.device)
        if tick.rng.random() < 0.5:
            target = target.flip(-1)
        with torch.autocast(budget.device, torch.bfloat16):
            latents = _latents(vae, target, tick.rng)
            picture = decoder(latents.contiguous(memory_format=torch.channels_last)).float()
        loop.update(picture_loss(picture, target), psnr=psnr(picture, target))
    if loop.rank == 0:
        torch.save(loop.averaged().state_dict(), folder / f"{DECODER}.pt")


@torch.no_grad()
def _latents(vae: AutoencoderKL, pixels: Tensor, rng: Random) -> Tensor:
    mean, logvar = encode_half(vae, F.avg_pool2d(pixels, 2))
    noise = mean.std() * NOISE * rng.random()
    return mean + torch.randn_like(mean) * ((0.5 * logvar).exp() + noise)


def load_decoder(folder: Path) -> Decoder:
    """The newest decoder of a training, finished or not; the shipped one where none is trained."""
    decoder = new_decoder()
    for stage in (REPAIRED, DECODER):
        with contextlib.suppress(FileNotFoundError):
            load_averaged(decoder, folder, stage)
            break
    return decoder.eval()
