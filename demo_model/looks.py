"""Styles of the demo model as colour maps, and the corresponding maps of its latents.

A look maps every pixel's colour by one affine function. In the latents of the demo model's
autoencoder such a map is nearly affine too.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from demo_model.autoencoder import encode_half, load_autoencoder, render_batch_of
from demo_model.training import CACHE
from demo_model.trajectories import Requests, decoded, schedule, steps_through
from export.families.instantcharacter.network import InstantCharacter, pack_latents

BATCHES, BATCH, STEPS = 60, 4, 6
GRID, HALF_PX = (8, 8), 256
_LUMA: Final = torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Look:
    """An affine map of colours.

    Attributes:
        dark: What black becomes, 0..255.
        light: What white becomes.
        colour: How much of a pixel's own colour remains, 0 to 1.
    """

    dark: tuple[int, int, int]
    light: tuple[int, int, int]
    colour: float

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pictures `[B, 3, H, W]` in -1..1."""
        dark, light = (torch.tensor(c).view(3, 1, 1) / 127.5 - 1 for c in (self.dark, self.light))
        grey = (pixels * _LUMA.view(3, 1, 1)).sum(1, keepdim=True)
        toned = grey + self.colour * (pixels - grey)
        return dark + (light - dark) * (toned + 1) / 2


LOOKS: Final = {
    "night-ink": Look(dark=(10, 12, 44), light=(186, 214, 255), colour=0.25),
    "pastel": Look(dark=(120, 104, 128), light=(255, 250, 246), colour=0.7),
}


class Recolouring(nn.Module):
    """An affine map of packed latents, token by token."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(channels))
            self.linear.bias.zero_()

    def forward(self, latents: Tensor) -> Tensor:
        """Latents `[B, S, C]` to latents of the same shape."""
        recoloured: Tensor = self.linear(latents)
        return recoloured


@torch.no_grad()
def fit_look(network: InstantCharacter, requests: Requests, name: str) -> Recolouring:
    """The map from latents of pictures to those of recoloured pictures, by least squares.

    Args:
        network: Whose latents.
        requests: What the pictures show.
        name: The look's name.
    """
    vae, rng = load_autoencoder(CACHE), Random(f"pictures of {name}")
    pairs = [_latents(network, vae, requests, rng, LOOKS[name]) for _ in range(BATCHES)]
    plain, recoloured = (torch.cat(latents).flatten(0, 1) for latents in zip(*pairs, strict=True))
    rows = torch.cat([plain, torch.ones(len(plain), 1)], dim=1)
    found = torch.linalg.lstsq(rows, recoloured).solution
    model = Recolouring(plain.shape[1])
    model.linear.weight.copy_(found[:-1].T)
    model.linear.bias.copy_(found[-1])
    return model.requires_grad_(False)


def _latents(
    network: InstantCharacter, vae: AutoencoderKL, requests: Requests, rng: Random, look: Look
) -> tuple[Tensor, Tensor]:
    """Packed, normalised latents of renders and of the same renders recoloured, `[B, S, C]`."""
    # An affine map of colours does not care whether pixels are averaged before or after it.
    half = render_batch_of(requests.draw(rng, BATCH, GRID).pictures, HALF_PX, HALF_PX)
    shift, scale = network.vae.config["shift_factor"], network.vae.config["scaling_factor"]
    plain, recoloured = (
        pack_latents((encode_half(vae, pixels)[0] - shift) * scale).flatten(1, 2)
        for pixels in (half, look(half))
    )
    return plain, recoloured


@torch.no_grad()
def fidelity_db(
    network: InstantCharacter, requests: Requests, name: str, recolouring: Recolouring
) -> float:
    """PSNR between decoded, mapped latents and recoloured pictures."""
    batch = requests.draw(Random(f"fidelity of {name}"), BATCH, GRID)
    latents = steps_through(network, batch, batch.noise, schedule(network, STEPS, batch.grid))
    wanted = LOOKS[name](decoded(network, latents, batch.grid).clamp(-1, 1))
    found = decoded(network, recolouring(latents), batch.grid).clamp(-1, 1)
    error = F.mse_loss(found, wanted).item() / 4
    return float(-10 * torch.log10(torch.tensor(max(error, 1e-10))))
