"""Styles of the demo model as colour maps, and the corresponding maps of its latents.

A look maps every pixel's colour by one affine function. In the latents of the demo model's
autoencoder such a map is nearly affine too, so it is fitted there through the decoder alone. That
needs no encoder, which the shipped bundle does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo_model.training import Budget, Loop
from demo_model.trajectories import Requests, decoded, schedule, steps_through
from export.families.instantcharacter.network import InstantCharacter

BATCH, STEPS = 4, 6
WINDOW: Final = (4, 4)
"""Tokens decoded of each picture, since decoding takes nearly all of the time."""
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


def fit_look(
    network: InstantCharacter, requests: Requests, name: str, budget: Budget, folder: Path
) -> Recolouring:
    """Find the map of latents that decodes to a look.

    Args:
        network: Frozen.
        requests: What it draws for the fit.
        name: The look's name.
        budget: How long to fit.
        folder: For the checkpoint, from which an interrupted fit resumes.
    """
    look = LOOKS[name]
    model = Recolouring(network.config.transformer["in_channels"])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.8, 0.98))
    loop = Loop(f"look-{name}", model, [optimizer], budget, folder, ema=0.9, decay_from=0.4)
    for tick in loop:
        batch = requests.draw(tick.rng, BATCH, (8, 8))
        sigmas = schedule(network, STEPS, batch.grid)
        latents = steps_through(network, batch, batch.noise, sigmas)
        top, left = tick.rng.randint(0, 4), tick.rng.randint(0, 4)
        window = latents.unflatten(1, batch.grid)[:, top : top + WINDOW[0], left : left + WINDOW[1]]
        part = window.flatten(1, 2)
        with torch.no_grad():
            wanted = look(decoded(network, part, WINDOW).clamp(-1, 1))
        loop.update(F.mse_loss(decoded(network, model(part), WINDOW), wanted))
    averaged = loop.averaged()
    assert isinstance(averaged, Recolouring)
    return averaged.requires_grad_(False)


def fidelity_db(
    network: InstantCharacter, requests: Requests, name: str, recolouring: Recolouring
) -> float:
    """PSNR between decoded, mapped latents and recoloured pictures."""
    batch = requests.draw(Random(f"fidelity of {name}"), BATCH, (8, 8))
    latents = steps_through(network, batch, batch.noise, schedule(network, STEPS, batch.grid))
    with torch.no_grad():
        wanted = LOOKS[name](decoded(network, latents, batch.grid).clamp(-1, 1))
        found = decoded(network, recolouring(latents), batch.grid).clamp(-1, 1)
    error = F.mse_loss(found, wanted).item() / 4
    return float(-10 * torch.log10(torch.tensor(max(error, 1e-10))))
