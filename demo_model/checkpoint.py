"""Combines the stages into one network, and reads it back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from castmate.engines.bundle import Bundle
from castmate.files import open_atomically
from demo_model.autoencoder import CORE, GROWN, load_core
from demo_model.config import TOON
from demo_model.data import LatentStatistics
from demo_model.flow import DISTILLED, FLOW, load_flow
from demo_model.matte import MATTE_FILE, SHIPPED, load_matte
from demo_model.pretrain import load_pretrained
from demo_model.safety import SAFETY
from demo_model.tokens import save_tokenizer
from export.families.instantcharacter.network import InstantCharacter
from export.weights import load_weights, stored_weights

CHECKPOINT = "toon.pt"
SCALE = ("scaling_factor", "shift_factor")
NOT_IN_GRAPHS = ("vae.encoder.", "image_encoder_2.embeddings.mask_token")
AT_HOME = ("matte.",)
"""Weights whose home is a file beside the code that trains them."""


def assemble(folder: Path, flow: Path | None = None) -> InstantCharacter:
    """The network from the newest stages in a folder, finished or not.

    Args:
        folder: Where the stages left their weights.
        flow: Weights or checkpoint of the flow stage; the best that exists if None.

    Raises:
        FileNotFoundError: A stage has not started.
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
    network.vae.load_state_dict(_autoencoder(folder))
    load_flow(
        network,
        flow
        or _first(
            [
                folder / name
                for name in (f"{DISTILLED}.pt", f"{DISTILLED}.ckpt", f"{FLOW}.pt", f"{FLOW}.ckpt")
            ]
        ),
    )
    safety = folder / f"{SAFETY}.pt"
    if safety.exists():
        network.safety_checker.load_state_dict(torch.load(safety, weights_only=True))
    matte = folder / MATTE_FILE
    network.matte = load_matte(matte if matte.exists() else SHIPPED)
    return network.eval()


def save_network(network: InstantCharacter, folder: Path) -> Path:
    """Writes `toon.pt`, `toon.json` (the latents' scale) and `tokenizer.json`."""
    path = folder / CHECKPOINT
    with open_atomically(path) as stream:
        torch.save(network.state_dict(), stream)
    vae = network.vae.config
    scale = {name: vae[name] for name in SCALE}
    path.with_suffix(".json").write_text(json.dumps(scale) + "\n")
    save_tokenizer(folder / "tokenizer.json")
    return path


def load_shipped(bundle: Bundle) -> InstantCharacter:
    """The network of a `toon` bundle, from its graphs; none holds the VAE's encoder.

    Raises:
        WeightsMismatch: The bundle is of another network, or quantized.
    """
    decoder = stored_weights(bundle.file(bundle.manifest.graphs["vae_decoder"].files[0]))
    scale = {name: float(decoder[name]) for name in SCALE}
    network = InstantCharacter(replace(TOON, vae={**TOON.vae, **scale}))
    load_weights(network, bundle, absent=(*NOT_IN_GRAPHS, *AT_HOME))
    network.matte = load_matte()
    return network.eval()


def load_network(path: Path) -> InstantCharacter:
    """Reads what `save_network` wrote."""
    scale = json.loads(path.with_suffix(".json").read_text())
    network = InstantCharacter(replace(TOON, vae={**TOON.vae, **scale}))
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def _first(paths: list[Path]) -> Path:
    for path in paths:
        if path.exists():
            return path
    raise FileNotFoundError(f"none of {', '.join(map(str, paths))}: train first")


def _autoencoder(folder: Path) -> dict[str, torch.Tensor]:
    """The finished autoencoder, or the core with its decoder as far as it is trained."""
    finished, growing = folder / f"{GROWN}.pt", folder / f"{GROWN}.ckpt"
    if finished.exists():
        state: dict[str, torch.Tensor] = torch.load(finished, weights_only=True)
        return state
    vae = load_core(folder).vae
    if growing.exists():
        for param, mean in zip(
            vae.decoder.parameters(), torch.load(growing, weights_only=True)["ema"], strict=True
        ):
            param.data.copy_(mean)
    current: dict[str, torch.Tensor] = vae.state_dict()
    return current


__all__ = ["CHECKPOINT", "CORE", "assemble", "load_network", "load_shipped", "save_network"]
