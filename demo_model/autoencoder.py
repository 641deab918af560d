"""Trains the encoder, which training needs and drawing does not: the bundle has none.

Its latents are those from which the shipped decoder draws, and the shipped transformer draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo_model.config import TOON
from demo_model.draw import PictureSpec, draw_picture, random_picture
from demo_model.optimizers import Muon, split_parameters
from demo_model.training import Budget, Loop
from demo_model.warm import copy_equal

CHANNELS = (16, 24, 40, 64, 96, 96)
"""Of the encoder's levels; the decoder has fewer where there are many pixels."""
KL_WEIGHT = 3e-4
EDGE_WEIGHT = 2.0
ENCODER = "encoder"
ENCODER_FILE = f"{ENCODER}.safetensors"
SHIPPED = Path(__file__).with_name(ENCODER_FILE)
"""Shipped so that training can go on from the bundle."""
CROP = 256


def render_batch_of(pictures: Sequence[PictureSpec], width: int, height: int) -> Tensor:
    """Pictures as [count, 3, height, width] in -1..1."""
    arrays = [np.asarray(draw_picture(picture, width, height)) for picture in pictures]
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    return pixels.to(memory_format=torch.channels_last).float() / 127.5 - 1


def render_batch(rng: Random, count: int, width: int, height: int) -> Tensor:
    """Random pictures as [count, 3, height, width] in -1..1."""
    return render_batch_of([random_picture(rng) for _ in range(count)], width, height)


def new_autoencoder() -> AutoencoderKL:
    """The shipped decoder, frozen, and an encoder that starts as average pooling.

    The encoder's outer level stays an average pool.
    """
    torch.manual_seed(0)
    vae = AutoencoderKL(**TOON.vae)
    vae.encoder = AutoencoderKL(**{**TOON.vae, "block_out_channels": CHANNELS}).encoder
    copy_equal(vae.decoder, "vae.decoder.")
    for part in (vae.encoder.conv_in, vae.encoder.down_blocks[0], vae.decoder):
        part.requires_grad_(False)
    with torch.no_grad():
        for module in vae.encoder.modules():
            if hasattr(module, "conv_shortcut") and hasattr(module, "conv2"):
                nn.init.zeros_(module.conv2.weight)
                nn.init.zeros_(module.conv2.bias)
                if module.conv_shortcut is not None:
                    _set_identity(module.conv_shortcut, torch.ones(1, 1))
        for down in vae.encoder.down_blocks:
            for sampler in down.downsamplers or ():
                kernel = torch.zeros(3, 3)
                kernel[:2, :2] = 0.25
                _set_identity(sampler.conv, kernel)
        centre = torch.zeros(3, 3)
        centre[1, 1] = 1
        _set_identity(vae.encoder.conv_in, centre)
    return vae.to(memory_format=torch.channels_last)


def _set_identity(conv: nn.Conv2d, kernel: Tensor) -> None:
    nn.init.zeros_(conv.weight)
    for channel in range(min(conv.in_channels, conv.out_channels)):
        conv.weight[channel, channel] = kernel
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def encode_half(vae: AutoencoderKL, half: Tensor) -> tuple[Tensor, Tensor]:
    """Half-size pictures to the mean and the log-variance of their latents.

    The outermost level of the encoder is an average pool by construction, so a half-size picture
    has exactly the latents that the whole encoder gives for the full-size one.
    """
    encoder = vae.encoder
    x = encoder.conv_in(half)
    for block in encoder.down_blocks[1:]:
        x = block(x)
    x = encoder.mid_block(x)
    x = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(x)))
    mean, logvar = x.float().chunk(2, dim=1)
    return mean, logvar.clamp(-12, 4)


def picture_loss(picture: Tensor, target: Tensor) -> Tensor:
    """L1, squared error, and L1 of the gradients at two scales: sharp edges in the right place."""
    error = picture - target
    loss = error.abs().mean() + 2 * error.square().mean()
    for scaled in (error, F.avg_pool2d(error, 2)):
        for axis in (-1, -2):
            loss = loss + 0.5 * EDGE_WEIGHT * scaled.diff(dim=axis).abs().mean()
    return loss


def psnr(picture: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in -1..1."""
    return 10 * torch.log10(4 / (picture.detach() - target).square().mean())


# Side of the rendered picture, whether it is cut, pictures in a batch, relative frequency.
SIZES = ((512, True, 6, 0.55), (512, False, 2, 0.20), (768, True, 5, 0.15), (1024, True, 4, 0.10))


def training_pixels(rng: Random) -> Tensor:
    """A batch of whole pictures, or of squares cut from pictures."""
    side, cut, count, _ = rng.choices(SIZES, weights=[weight for *_, weight in SIZES])[0]
    if not cut:
        return render_batch(rng, count, side, side)
    squares = []
    for pixels in render_batch(rng, count // 2 + 1, side, side):
        for _ in range(2):
            x, y = (16 * rng.randint(0, (side - CROP) // 16) for _ in range(2))
            squares.append(pixels[:, y : y + CROP, x : x + CROP])
    return torch.stack(squares[:count]).contiguous(memory_format=torch.channels_last)


def train_encoder(budget: Budget, folder: Path) -> None:
    """Learns the latents from which the shipped decoder draws the picture."""
    vae = (load_autoencoder(folder) if SHIPPED.exists() else new_autoencoder()).to(budget.device)
    matrices, others = split_parameters(vae.encoder.named_parameters())
    optimizers = [Muon(matrices, lr=0.01), torch.optim.AdamW(others, lr=2e-3, weight_decay=0.0)]
    loop = Loop(ENCODER, vae, optimizers, budget, folder, ema=0.998)
    for tick in loop:
        target = training_pixels(tick.rng).to(budget.device)
        with torch.autocast(budget.device, torch.bfloat16):
            mean, logvar = encode_half(vae, F.avg_pool2d(target, 2))
            latents = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
            if tick.rng.random() < 0.5:  # latents of a mirrored picture are the mirrored latents
                latents, target = latents.flip(-1), target.flip(-1)
            latents = latents.contiguous(memory_format=torch.channels_last)
            picture = vae.decoder(latents).float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = picture_loss(picture, target) + KL_WEIGHT * kl
        loop.update(loss, psnr=psnr(picture, target), kl=kl.detach())
    if loop.rank == 0:
        averaged = loop.averaged()
        assert isinstance(averaged, AutoencoderKL)
        save_encoder(averaged, folder / ENCODER_FILE)


def save_encoder(vae: AutoencoderKL, path: Path) -> None:
    """Writes the encoder alone, in fp16."""
    state = vae.encoder.half().state_dict()
    save_file({name: weight.contiguous() for name, weight in state.items()}, path)


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """The shipped decoder, and the encoder that was trained in a folder or else the shipped one."""
    vae = new_autoencoder()
    trained = folder / ENCODER_FILE
    vae.encoder.load_state_dict(load_file(trained if trained.exists() else SHIPPED))
    return vae.eval()
