"""DINO ViT-S/16, a published network that tells subjects of one kind apart (Caron et al., 2021).

DreamBooth's authors judge subject fidelity by it rather than by CLIP: it was trained without
labels, so nothing taught it to overlook what makes two cats different ones. It has a twelfth of
the weights of CLIP's ViT-L/14, is under Apache-2.0, and conditions nothing here: InstantCharacter
sees references by SigLIP and DINOv2.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import ViTConfig, ViTModel

from export.families.instantcharacter.identity import Identity
from export.families.instantcharacter.pretrained import pretrained

FILES = ("model.safetensors",)


class DinoIdentity(Identity):
    """Pixels to the class token of the last layer."""

    mean_std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Make the network.

        Args:
            config: Arguments of `transformers.ViTConfig`.
        """
        super().__init__()
        self.vit = ViTModel(ViTConfig(**config), add_pooling_layer=False)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens: Tensor = self.vit(pixels).last_hidden_state
        return tokens[:, 0]


def load_dino(config: Mapping[str, Any], folder: Path) -> DinoIdentity:
    """Read a published folder, such as that of `facebook/dino-vits16`.

    Raises:
        ExportError: Names every key that does not fit.
    """
    dino = DinoIdentity(config)
    dino.vit = pretrained(dino.vit, folder, add_pooling_layer=False)
    return dino.eval()
