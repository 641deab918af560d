"""Its network, and what the build steps know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from castmate.defaults import Defaults
from castmate.engines.graphs import Range
from castmate.engines.manifest import Profile
from castmate.families.flat.graphs import TABLE  # type: ignore[import-not-found]
from export.family import ExportFamily, Network
from export.graphs import ExportGraph, Makers
from export.precision import Precision

CELL = 64
SIZES = {"c": 3, "p": CELL}


@dataclass(frozen=True)
class Config:
    name: str = "grey"
    overflows_in: tuple[Precision, ...] = ()


class Step(nn.Module):
    """Half of the way from the latents to the colour."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5))

    def forward(self, latents: Tensor, step: Tensor, colour: Tensor) -> Tensor:
        """One step; the first one goes the whole way, so that the noise is gone."""
        share = torch.where(step == 0, torch.ones_like(self.share), self.share).float()
        return latents + share * (colour.float() - latents)


class Decode(nn.Module):
    def forward(self, latents: Tensor) -> Tensor:
        """A cell of one colour for each latent."""
        pixels = (latents.clamp(0, 1) * 255).round()
        return pixels.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2).to(torch.uint8)


class Flat(Network):
    family = "flat"

    def __init__(self) -> None:
        super().__init__()
        self.config, self.transformer = Config(), Step()

    @property
    def denoiser(self) -> nn.Module:
        return self.transformer


def bundle_graphs(network: Flat, step_caching: bool) -> Makers:
    modules: dict[str, Callable[[], nn.Module]] = {
        "transformer": lambda: network.transformer,
        "vae_decoder": Decode,
    }

    def maker(name: str) -> Callable[[], ExportGraph]:
        return lambda: ExportGraph.of(
            TABLE, name, modules[name](), SIZES, network.transformer.share.dtype
        )

    return {name: maker(name) for name in modules}


def dims(config: Config, side: int) -> dict[str, int]:
    return {**SIZES, "B": 1, "h": side // CELL, "w": side // CELL}


def denoise(network: Flat, *_: Any) -> Tensor:
    raise NotImplementedError


def decode(network: Flat, latents: Tensor) -> np.ndarray:
    return Decode()(latents)[0].numpy()


FAMILY = ExportFamily(
    bundle_graphs,
    lambda network: {"pixels_per_cell": CELL},
    dims,
    (),
    denoise,
    decode,
    Defaults(num_inference_steps=4, guidance_scale=1, subject_scale=1, true_cfg_scale=1),
    profile=Profile(steps=Range(min=1, opt=4, max=4)),
)
