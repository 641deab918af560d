"""References as the network sees them: a white square, one whole view and four quarters."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from demo_model.characters import CharacterSpec
from demo_model.config import TOON
from demo_model.draw import Camera, Style, draw_picture, draw_reference, random_picture

CROP_PX = TOON.projector.crop_px


def crops(reference: Image.Image) -> Tensor:
    """A reference of any shape as uint8 `[5, s, s, 3]`, prepared like the serving pipeline does."""
    side = max(reference.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(reference, ((side - reference.width) // 2, (side - reference.height) // 2))
    low = np.asarray(square.resize((CROP_PX, CROP_PX), Image.Resampling.BICUBIC))
    high = np.asarray(square.resize((2 * CROP_PX, 2 * CROP_PX), Image.Resampling.BICUBIC))
    s = CROP_PX
    views = [low, high[:s, :s], high[:s, s:], high[s:, :s], high[s:, s:]]
    return torch.from_numpy(np.stack(views))


def random_reference(spec: CharacterSpec, rng: Random) -> Image.Image:
    """A reference as users have it: mostly standing on white, sometimes moved or in a scene."""
    kind = rng.random()
    if kind < 0.2:
        picture = random_picture(rng, spec)
        return draw_picture(replace(picture, camera=Camera.WHOLE, style=Style.TOON), 256, 256)
    image = draw_reference(spec, 256)
    if kind < 0.55:
        return image
    if rng.random() < 0.3:
        image = ImageOps.mirror(image)
    size = rng.randint(180, 300)
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (256, 256), (255, 255, 255))
    free = 256 - size
    canvas.paste(image, (free // 2 + rng.randint(-12, 12), free // 2 + rng.randint(-12, 12)))
    return canvas
