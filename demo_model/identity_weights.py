"""The identity network of the demo model, and its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from demo_model.config import TOON
from export.families.instantcharacter.identity import IdentityNet

IDENTITY = "identity"
IDENTITY_FILE = f"{IDENTITY}.safetensors"
SHIPPED = Path(__file__).with_name(IDENTITY_FILE)
"""The file with the weights, which every build of the bundle reads."""


def new_identity() -> IdentityNet:
    """The network with random weights."""
    torch.manual_seed(0)
    return IdentityNet(TOON.identity["channels"], TOON.identity["embedding_dim"])


def load_identity(path: Path = SHIPPED) -> IdentityNet:
    """The trained network; its weights are stored in fp16."""
    identity = new_identity().half()
    identity.load_state_dict(load_file(path))
    return identity.float().eval()
