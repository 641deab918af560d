"""Trains the decoder on what the transformer draws: crooked outlines in, straight ones out.

A picture is noised part of the way, and the transformer takes the noise out again. Its latents show
the same picture with the transformer's own mistakes, and from them the decoder learns to draw the
picture as it was. Decoders are otherwise trained on latents that no transformer has touched, as in
Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022).
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from demo_model.assembly import assemble
from demo_model.autoencoder import (
    encode_half,
    load_autoencoder,
    picture_loss,
    psnr,
    render_batch_of,
)
from demo_model.checkpoint import TOKENIZER
from demo_model.data import facing_one_way
from demo_model.decoder import REPAIRED, load_decoder
from demo_model.optimizers import Muon, split_parameters
from demo_model.tokens import save_tokenizer
from demo_model.training import Budget, Loop
from demo_model.trajectories import CHARACTERS, Requests, steps_through
from export.families.instantcharacter.network import pack_latents, unpack_latents

STEPS = 4
GRIDS = (((8, 8), 6), ((16, 16), 4))
"""Rows and columns of tokens, and pictures in a batch."""
NOISE = (0.2, 0.5)
"""Noise levels from which the transformer starts. At higher ones it moves outlines so far that the
decoder would learn to blur them."""
CUT = 4
"""Tokens in a row and a column that are decoded, since decoding takes most of the time."""
PX_PER_TOKEN = 64


def train_repaired(budget: Budget, folder: Path) -> None:
    """Learns to draw the picture that the transformer's latents were meant to show."""
    vae = load_autoencoder(folder).requires_grad_(False)
    requests = _newest(folder)
    decoder = load_decoder(folder).train()
    matrices, others = split_parameters(decoder.named_parameters())
    optimizers = [Muon(matrices, lr=0.003), torch.optim.AdamW(others, lr=7e-4, weight_decay=0.0)]
    loop = Loop(REPAIRED, decoder, optimizers, budget, folder, ema=0.998, decay_from=0.3)
    for tick in loop:
        latents, target = redrawn(vae, requests, tick.rng)
        with torch.autocast(budget.device, torch.bfloat16):
            picture = decoder(latents.contiguous(memory_format=torch.channels_last)).float()
        loop.update(picture_loss(picture, target), psnr=psnr(picture, target))
    if loop.rank == 0:
        torch.save(loop.averaged().state_dict(), folder / f"{REPAIRED}.pt")


def _newest(folder: Path) -> Requests:
    """Requests to the transformer in training, or to the shipped one where none is trained."""
    try:
        network = assemble(folder)
    except FileNotFoundError:
        return Requests.of_shipped(count=CHARACTERS)
    save_tokenizer(folder / TOKENIZER)
    return Requests.of_trained(network, folder / TOKENIZER, count=CHARACTERS)


@torch.no_grad()
def redrawn(vae: AutoencoderKL, requests: Requests, rng: Random) -> tuple[Tensor, Tensor]:
    """Cuts of latents that the transformer has drawn again, and of the pictures they should show.

    Returns:
        `[B, C, h, w]` as the decoder takes them, and `[B, 3, 32h, 32w]` in -1..1.
    """
    network, ((rows, columns), count) = requests.network, rng.choice(GRIDS)
    batch = requests.draw(rng, count, (rows, columns))
    target = render_batch_of(batch.pictures, columns * PX_PER_TOKEN, rows * PX_PER_TOKEN)
    target = facing_one_way(target, batch.pictures)
    with torch.autocast("cpu", torch.bfloat16):
        mean = encode_half(vae, F.avg_pool2d(target, 2))[0]
    shift, scale = network.vae.config["shift_factor"], network.vae.config["scaling_factor"]
    x = pack_latents((mean - shift) * scale).flatten(1, 2)
    level = rng.uniform(*NOISE)
    levels = torch.linspace(level, 0, STEPS + 1)
    x = steps_through(network, batch, (1 - level) * x + level * batch.noise, levels)
    latents = unpack_latents(x.unflatten(1, (rows, columns))) / scale + shift
    row, column = rng.randint(0, rows - CUT), rng.randint(0, columns - CUT)
    cells = latents[..., 2 * row : 2 * (row + CUT), 2 * column : 2 * (column + CUT)]
    top, left, side = row * PX_PER_TOKEN, column * PX_PER_TOKEN, CUT * PX_PER_TOKEN
    return cells, target[..., top : top + side, left : left + side]
