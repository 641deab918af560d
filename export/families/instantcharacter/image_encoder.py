"""SigLIP or DINOv2 as InstantCharacter reads them: deep and shallow features of five crops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import Dinov2Model, PreTrainedModel, SiglipVisionModel

from export.families.instantcharacter.projector import ImageFeatures

SIGLIP_MEAN_STD = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class CropEncoder(nn.Module):
    """One image encoder over the five crops of a reference, normalisation included.

    The encoder's `hidden_states` are taken before its final norm, `last_hidden_state` after it; a
    class token (DINOv2) is dropped.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: PreTrainedModel, layers: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = tuple(layers)
        self.class_tokens = int(isinstance(encoder, Dinov2Model))
        mean, std = SIGLIP_MEAN_STD if isinstance(encoder, SiglipVisionModel) else IMAGENET_MEAN_STD
        for name, values in (("mean", mean), ("std", std)):
            tensor = torch.tensor(values, device=encoder.device).view(3, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, crops: Tensor) -> ImageFeatures:
        """Encode references.

        Args:
            crops: `[B, 5, s, s, 3]` uint8, RGB: the whole picture, then its quarters (top left, top
                right, bottom left, bottom right) at twice the resolution.
        """
        batch = crops.shape[0]
        # Cast first: TensorRT takes 8-bit tensors in and does nothing else with them.
        pixels = (crops.float().flatten(0, 1).permute(0, 3, 1, 2) / 255 - self.mean) / self.std
        out = self.encoder(pixels.to(self.encoder.dtype), output_hidden_states=True)

        def per_reference(hidden: Tensor) -> Tensor:
            return hidden[:, self.class_tokens :].unflatten(0, (batch, 5))

        deep = per_reference(out.last_hidden_state)
        shallow = [per_reference(out.hidden_states[i])[:, 0] for i in self.layers]
        return ImageFeatures(deep[:, 0], torch.cat(shallow, dim=1), deep[:, 1:].flatten(1, 2))
