"""Combines the stages of a training into one network, finished or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from demo_model.config import TOON
from demo_model.data import LatentStatistics
from demo_model.decoder import load_decoder
from demo_model.flow import DISTILLED, FLOW, load_flow
from demo_model.identity_weights import IDENTITY_FILE, load_identity
from demo_model.identity_weights import SHIPPED as SHIPPED_IDENTITY
from demo_model.matte import MATTE_FILE, SHIPPED, load_matte
from demo_model.pretrain import load_pretrained
from demo_model.safety import SAFETY
from export.families.instantcharacter.network import InstantCharacter


def assemble(folder: Path, flow: Path | None = None) -> InstantCharacter:
    """The network from the newest stages in a folder.

    Args:
        folder: Where the stages left their weights.
        flow: Weights or checkpoint of the flow stage; the best that exists if None.

    Raises:
        FileNotFoundError: A stage has left no weights.
    """
    statistics = LatentStatistics.load(folder)
    vae = {
        **TOON.vae,
        "scaling_factor": statistics.scaling_factor,
        "shift_factor": statistics.shift_factor,
    }
    torch.manual_seed(0)
    network = InstantCharacter(replace(TOON, vae=vae))
    load_pretrained(network, folder)
    network.vae.decoder = load_decoder(folder)
    stages = (f"{DISTILLED}.pt", f"{DISTILLED}.ckpt", f"{FLOW}.pt", f"{FLOW}.ckpt")
    load_flow(network, flow or _first([folder / name for name in stages]))
    safety = folder / f"{SAFETY}.pt"
    if safety.exists():
        network.safety_checker.load_state_dict(torch.load(safety, weights_only=True))
    matte = folder / MATTE_FILE
    network.matte = load_matte(matte if matte.exists() else SHIPPED)
    identity = folder / IDENTITY_FILE
    network.identity = load_identity(identity if identity.exists() else SHIPPED_IDENTITY)
    return network.eval()


def _first(paths: list[Path]) -> Path:
    for path in paths:
        if path.exists():
            return path
    raise FileNotFoundError(f"none of {', '.join(map(str, paths))}: train first")
