"""Trains the 32x autoencoder: first 16x on half-size pictures, then grows the outer level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from demo_model.config import TOON
from demo_model.draw import PictureSpec, draw_picture, random_picture
from demo_model.optimizers import Muon, split_parameters
from demo_model.training import Budget, Loop

KL_WEIGHT = 3e-4
CORE, GROWN = "autoencoder_core", "autoencoder"


def render_batch_of(pictures: Sequence[PictureSpec], width: int, height: int) -> Tensor:
    """Pictures as [count, 3, height, width] in -1..1."""
    arrays = [np.asarray(draw_picture(picture, width, height)) for picture in pictures]
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    return pixels.to(memory_format=torch.channels_last).float() / 127.5 - 1


def render_batch(rng: Random, count: int, width: int, height: int) -> Tensor:
    """Random pictures as [count, 3, height, width] in -1..1."""
    return render_batch_of([random_picture(rng) for _ in range(count)], width, height)


class Core(nn.Module):
    """The inner 16x autoencoder, for pictures of half the size.

    The outermost level of the encoder is an average pool by construction, so the core encodes a
    half-size picture to exactly the latents that the whole encoder gives for the full-size one.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae
        self.to_rgb = nn.Conv2d(vae.config["block_out_channels"][1], 3, 1)

    def encode(self, half: Tensor) -> tuple[Tensor, Tensor]:
        """Half-size pictures to the mean and the log-variance of their latents."""
        encoder = self.vae.encoder
        x = encoder.conv_in(half)
        for block in encoder.down_blocks[1:]:
            x = block(x)
        x = encoder.mid_block(x)
        x = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(x)))
        mean, logvar = x.float().chunk(2, dim=1)
        return mean, logvar.clamp(-12, 4)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to half-size pictures."""
        decoder = self.vae.decoder
        x = decoder.mid_block(decoder.conv_in(latents))
        for block in decoder.up_blocks[:-2]:
            x = block(x)
        for resnet in decoder.up_blocks[-2].resnets:
            x = resnet(x, temb=None)
        rgb: Tensor = self.to_rgb(x)
        return rgb.float()


def new_autoencoder() -> AutoencoderKL:
    """A network that starts as average pooling and bilinear upsampling."""
    vae = AutoencoderKL(**TOON.vae)
    with torch.no_grad():
        for module in vae.modules():
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
        for up in vae.decoder.up_blocks:
            for sampler in up.upsamplers or ():
                taps = torch.tensor([0.25, 0.5, 0.25])
                _set_identity(sampler.conv, torch.outer(taps, taps))
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


def grow(core: Core) -> None:
    """Starts the decoder's outer level as bilinear upsampling of the core's picture.

    The normalisation in front of the last convolution must not scale single pictures, so the
    spare channels carry a constant; and silu(a) - silu(-a) = a makes the activation linear.
    """
    decoder = core.vae.decoder
    shortcut = decoder.up_blocks[-1].resnets[0].conv_shortcut
    constant = 1.5
    rgb, bias = core.to_rgb.weight, core.to_rgb.bias
    assert bias is not None
    with torch.no_grad():
        shortcut.weight.zero_()
        shortcut.bias.zero_()
        shortcut.weight[0:3], shortcut.weight[3:6] = rgb, -rgb
        shortcut.bias[0:3], shortcut.bias[3:6] = bias, -bias
        spare = torch.arange(shortcut.out_channels - 6)
        shortcut.bias[6:] = constant * (1 - 2 * (spare % 2))
        decoder.conv_norm_out.weight.fill_((0.375 * 0.35 + 0.625 * constant**2) ** 0.5)
        decoder.conv_norm_out.bias.zero_()
        decoder.conv_out.weight.zero_()
        decoder.conv_out.bias.zero_()
        for channel in range(3):
            decoder.conv_out.weight[channel, channel, 1, 1] = 1
            decoder.conv_out.weight[channel, channel + 3, 1, 1] = -1


def picture_loss(picture: Tensor, target: Tensor) -> Tensor:
    """L1, squared error, and L1 of the gradients: sharp edges in the right place."""
    error = picture - target
    loss = error.abs().mean() + 2 * error.square().mean()
    for axis in (-1, -2):
        loss = loss + error.diff(dim=axis).abs().mean()
    return loss


def psnr(picture: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in -1..1."""
    return 10 * torch.log10(4 / (picture.detach() - target).square().mean())


# Width and height in full-size pixels, pictures per batch, relative frequency.
SIZES = (((512, 512), 4, 0.7), ((768, 768), 2, 0.08), ((1024, 1024), 1, 0.07),
         ((768, 1280), 1, 0.04), ((1280, 768), 1, 0.04), ((1024, 512), 2, 0.03),
         ((1536, 1536), 1, 0.02))  # fmt: skip


def pick_size(rng: Random) -> tuple[tuple[int, int], int]:
    """Draws a size and the number of pictures of that size in a batch."""
    size, count, _ = rng.choices(SIZES, weights=[weight for *_, weight in SIZES])[0]
    return size, count


def train_core(budget: Budget, folder: Path) -> None:
    """First stage: everything except the outer level, on half-size pictures."""
    torch.manual_seed(0)
    core = Core(new_autoencoder()).to(budget.device)
    for part in (core.vae.encoder.conv_in, core.vae.encoder.down_blocks[0],
                 core.vae.decoder.up_blocks[-1], core.vae.decoder.up_blocks[-2].upsamplers,
                 core.vae.decoder.conv_norm_out, core.vae.decoder.conv_out):  # fmt: skip
        part.requires_grad_(False)
    matrices, others = split_parameters(core.named_parameters())
    optimizers = [Muon(matrices, lr=0.015), torch.optim.AdamW(others, lr=2e-3, weight_decay=0.0)]
    loop = Loop(CORE, core, optimizers, budget, folder, ema=0.998)
    for tick in loop:
        (width, height), count = pick_size(tick.rng)
        target = render_batch(tick.rng, count, width // 2, height // 2).to(budget.device)
        with torch.autocast(budget.device, torch.bfloat16):
            mean, logvar = core.encode(target)
            latents = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
            if tick.rng.random() < 0.5:  # latents of a mirrored picture are the mirrored latents
                latents, target = latents.flip(-1), target.flip(-1)
            picture = core.decode(latents.contiguous(memory_format=torch.channels_last))
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = picture_loss(picture, target) + KL_WEIGHT * kl
        loop.update(loss, psnr=psnr(picture, target), kl=kl.detach())
    if loop.rank == 0:
        averaged = loop.averaged()
        assert isinstance(averaged, Core)
        grow(averaged)
        torch.save(averaged.state_dict(), folder / f"{CORE}.pt")


def load_core(folder: Path) -> Core:
    """The finished first stage, with the outer level grown but untrained."""
    core = Core(new_autoencoder())
    core.load_state_dict(torch.load(folder / f"{CORE}.pt", weights_only=True))
    core.vae.to(memory_format=torch.channels_last)
    return core.eval()


def train_decoder(budget: Budget, folder: Path) -> None:
    """Second stage: the decoder at full size; the latents stay as they are."""
    core = load_core(folder).to(budget.device)
    decoder = core.vae.decoder.train()
    matrices, others = split_parameters(decoder.named_parameters())
    optimizers = [Muon(matrices, lr=0.0015), torch.optim.AdamW(others, lr=4e-4, weight_decay=0.0)]
    loop = Loop(GROWN, decoder, optimizers, budget, folder, ema=0.995)
    for tick in loop:
        (width, height), count = pick_size(tick.rng)
        count = max(1, count // 2)
        target = render_batch(tick.rng, count, width, height).to(budget.device)
        with torch.autocast(budget.device, torch.bfloat16):
            with torch.no_grad():
                mean, logvar = core.encode(F.avg_pool2d(target, 2))
                latents = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
            picture = decoder(latents.contiguous(memory_format=torch.channels_last)).float()
        loop.update(picture_loss(picture, target), psnr=psnr(picture, target))
    if loop.rank == 0:
        core.vae.decoder = loop.averaged()
        torch.save(core.vae.state_dict(), folder / f"{GROWN}.pt")
