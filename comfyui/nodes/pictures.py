"""Pictures between ComfyUI and the server: tensors here, files there."""

from __future__ import annotations

import io as streams
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ..client.errors import CastmateError


def to_png(image: torch.Tensor, mask: torch.Tensor | None = None) -> bytes:
    """One picture `[H, W, C]` as PNG; the same one is always the same bytes.

    Args:
        image: From 0 to 1.
        mask: `[h, w]`; where it is 1, the picture is transparent, as ComfyUI's Load Image says it.
    """
    pixels = (image[..., :3].cpu().numpy() * 255).round().clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    if mask is not None:
        shape = Image.fromarray(
            ((1 - mask.cpu().numpy()) * 255).round().clip(0, 255).astype(np.uint8)
        )
        picture.putalpha(shape.resize(picture.size, Image.Resampling.BILINEAR))
    stream = streams.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def masks_for(images: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor | None]:
    """A mask for each picture of a batch; Load Image gives an empty small one where there is none.

    Raises:
        CastmateError: There are neither as many masks as pictures, nor one.
    """
    count = images.shape[0]
    if mask is None or not bool(mask.any()):
        return [None] * count
    masks = mask if mask.dim() == 3 else mask[None]
    if masks.shape[0] not in (1, count):
        raise CastmateError(
            f"`mask` has {masks.shape[0]} masks for {count} pictures. Connect one, or one for each."
        )
    return [masks[number % masks.shape[0]] for number in range(count)]


def to_tensors(files: Sequence[bytes]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of one size as a batch `[B, H, W, 3]`, and their transparency `[B, H, W]`."""
    images, masks = [], []
    for file in files:
        picture = Image.open(streams.BytesIO(file)).convert("RGBA")
        pixels = torch.from_numpy(np.asarray(picture).astype(np.float32) / 255)
        images.append(pixels[..., :3])
        masks.append(1 - pixels[..., 3])
    return torch.stack(images), torch.stack(masks)


def grid(images: torch.Tensor, columns: int = 0, gap: int = 16) -> torch.Tensor:
    """A batch as one picture `[1, H, W, 3]` on white.

    Args:
        images: `[B, h, w, 3]`.
        columns: How many stand side by side; 0 makes it about square.
        gap: Pixels between two of them, and around all.
    """
    count, height, width, _ = images.shape
    columns = min(columns, count) or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = torch.ones(
        1, rows * (height + gap) + gap, columns * (width + gap) + gap, 3, dtype=images.dtype
    )
    for number, image in enumerate(images):
        top = gap + number // columns * (height + gap)
        left = gap + number % columns * (width + gap)
        sheet[0, top : top + height, left : left + width] = image
    return sheet
