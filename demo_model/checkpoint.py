"""Writes and reads whole networks: the shipped one from its bundle, a trained one from a folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from castmate.engines.bundle import Bundle
from castmate.files import open_atomically
from demo_model.config import TOON
from demo_model.identity_weights import load_identity
from demo_model.matte import load_matte
from export.families.instantcharacter.network import InstantCharacter
from export.weights import load_weights, stored_weights

CHECKPOINT, TOKENIZER = "toon.pt", "tokenizer.json"
SCALE = ("scaling_factor", "shift_factor")
NOT_IN_GRAPHS = ("vae.encoder.", "image_encoder_2.embeddings.mask_token")
AT_HOME = ("matte.", "identity.")
"""Weights that are kept in a file beside the code that trains them."""


def save_network(network: InstantCharacter, folder: Path) -> Path:
    """Writes `toon.pt` and the latents' scale; the caller puts `tokenizer.json` beside them."""
    path = folder / CHECKPOINT
    with open_atomically(path) as stream:
        torch.save(network.state_dict(), stream)
    vae = network.vae.config
    scale = {name: vae[name] for name in SCALE}
    path.with_suffix(".json").write_text(json.dumps(scale) + "\n")
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
    network.matte, network.identity = load_matte(), load_identity()
    return network.eval()


def load_network(path: Path) -> InstantCharacter:
    """Reads what `save_network` wrote."""
    scale = json.loads(path.with_suffix(".json").read_text())
    state = torch.load(path, weights_only=True)
    network = InstantCharacter(replace(TOON, vae={**TOON.vae, **scale}))
    judging = {f"identity.{name}": weight for name, weight in load_identity().state_dict().items()}
    network.load_state_dict(judging | state)  # an older training may have none
    return network.eval()
