"""Trains the matte: finds the character's pixels on any background.

Characters of any size stand anywhere, in scenes and in front of gradients, shapes and noise, so
the network learns what a character is rather than what a scene is. It sees only renders.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import Tensor

from demo_model.characters import random_character
from demo_model.config import TOON
from demo_model.figure import draw_figure
from demo_model.optimizers import Muon, split_parameters
from demo_model.pen import Color, Pen
from demo_model.poses import Pose
from demo_model.scenes import OUTDOORS, Scene, draw_scene
from demo_model.training import Budget, Loop
from export.families.instantcharacter.matte import MatteGraph, MatteNet

MATTE = "matte"
MATTE_FILE = f"{MATTE}.safetensors"
SHIPPED = Path(__file__).with_name(MATTE_FILE)
"""The file with the weights, which every build of the bundle reads."""
BATCH = 16
SMALLEST, LARGEST = 0.12, 1.05
"""Side of the square in which a character is drawn, as a share of the picture's shorter side."""
_CANVASES = ((128, 128), (128, 128), (176, 112), (112, 176))
_SUPERSAMPLE = 2

Background = Callable[[int, int, Random], Image.Image]


def random_sample(
    rng: Random, *, held_out: bool, scale: int = 1
) -> tuple[Image.Image, NDArray[np.float32]]:
    """A picture and the alpha of its character, both `[height, width]` in one of a few formats.

    Args:
        rng: Decides everything.
        held_out: Whether to draw a character that training never sees, in a scene.
        scale: Roughly how many times as large as the network's view.
    """
    width, height = (scale * side for side in rng.choice(_CANVASES))
    background = _scene if held_out else rng.choices(_BACKGROUNDS, weights=_SHARES)[0]
    behind = np.asarray(background(width, height, rng), np.float32)
    on_black, on_white = _figure_on_black_and_white(width, height, rng, held_out=held_out)
    alpha = 1 - (on_white - on_black).mean(-1) / 255
    pixels = on_black + (1 - alpha[..., None]) * behind
    if not held_out and rng.random() < 0.5:
        pixels = _disturbed(pixels, rng)
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)), alpha


def train_matte(budget: Budget, folder: Path) -> None:
    """Trains the shipped weights further on fresh pictures, with tiny to oversized characters.

    Without shipped weights it starts from random ones.
    """
    matte = (load_matte() if SHIPPED.exists() else new_matte()).train().to(budget.device)
    matrices, others = split_parameters(matte.named_parameters(), ("last",))
    optimizers = [Muon(matrices, lr=0.01), torch.optim.AdamW(others, lr=2e-3, weight_decay=0.0)]
    graph = MatteGraph(matte).to(budget.device)
    loop = Loop(MATTE, matte, optimizers, budget, folder, ema=0.995)
    for tick in loop:
        samples = [random_sample(tick.rng, held_out=False) for _ in range(BATCH)]
        images, alpha = as_batch(samples)
        logits = matte(graph.pixels(images.to(budget.device))).squeeze(1)
        truth = alpha.to(budget.device)
        loss = F.binary_cross_entropy_with_logits(logits, truth) + _dice_loss(logits, truth)
        loop.update(loss, iou=iou(logits.detach() > 0, truth > 0.5).mean())
    if loop.rank == 0:
        state = {name: weight.half() for name, weight in loop.averaged().state_dict().items()}
        save_file(state, folder / MATTE_FILE)


def new_matte() -> MatteNet:
    """The network with random weights."""
    torch.manual_seed(0)
    return MatteNet(TOON.matte["channels"])


def load_matte(path: Path = SHIPPED) -> MatteNet:
    """The trained network; its weights are stored in fp16."""
    matte = new_matte().half()
    matte.load_state_dict(load_file(path))
    return matte.float().eval()


def as_batch(
    samples: Sequence[tuple[Image.Image, NDArray[np.float32]]],
) -> tuple[Tensor, Tensor]:
    """Samples as the network sees them: uint8 `[B, m, m, 3]` and alpha `[B, m, m]`."""
    size = (TOON.matte["image_size"],) * 2
    images = [np.asarray(image.resize(size, Image.Resampling.BILINEAR)) for image, _ in samples]
    alphas = [
        np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BILINEAR))
        for _, alpha in samples
    ]
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(alphas))


def iou(found: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of masks `[B, h, w]`, for each picture."""
    both, either = (found & truth).sum((1, 2)), (found | truth).sum((1, 2))
    return both / either.clamp(min=1)


def _dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """A loss in which a small character counts as much as a large one."""
    share = logits.sigmoid()
    both = (share * truth).sum((1, 2))
    return (1 - (2 * both + 1) / ((share + truth).sum((1, 2)) + 1)).mean()


def _figure_on_black_and_white(
    width: int, height: int, rng: Random, *, held_out: bool
) -> list[NDArray[np.float32]]:
    spec = random_character(rng, held_out=held_out)
    pose, mirrored = rng.choice(list(Pose)), rng.random() < 0.5
    w, h = width * _SUPERSAMPLE, height * _SUPERSAMPLE
    unit = min(w, h) * math.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST)))
    left = rng.uniform(min(-0.1 * unit, w - 0.9 * unit), max(-0.1 * unit, w - 0.9 * unit))
    top = rng.uniform(min(-0.05 * unit, h - 0.95 * unit), max(-0.05 * unit, h - 0.95 * unit))
    renders = []
    for color in ("black", "white"):
        image = Image.new("RGB", (w, h), color)
        draw_figure(Pen(ImageDraw.Draw(image), left, top, unit), spec, pose, mirrored=mirrored)
        renders.append(np.asarray(image.reduce(_SUPERSAMPLE), np.float32))
    return renders


def _disturbed(pixels: NDArray[np.float32], rng: Random) -> NDArray[np.float32]:
    """Another exposure, and grain."""
    noise = np.random.default_rng(rng.randrange(2**32))
    grain = noise.standard_normal(pixels.shape, np.float32) * rng.uniform(0, 12)
    return pixels * rng.uniform(0.75, 1.15) + rng.uniform(-20, 20) + grain


def _color(rng: Random) -> Color:
    return (rng.randrange(256), rng.randrange(256), rng.randrange(256))


def _scene(width: int, height: int, rng: Random) -> Image.Image:
    w, h = width * _SUPERSAMPLE, height * _SUPERSAMPLE
    image = Image.new("RGB", (w, h))
    scene = rng.choice(list(Scene))
    pen = Pen(ImageDraw.Draw(image), 0, 0, min(w, h))
    draw_scene(pen, w, h, scene, trees=scene in OUTDOORS and rng.random() < 0.5, rng=rng)
    return image.reduce(_SUPERSAMPLE)


def _plain(width: int, height: int, rng: Random) -> Image.Image:
    color = rng.choice([(255, 255, 255), (0, 0, 0), _color(rng), _color(rng)])
    return Image.new("RGB", (width, height), color)


def _gradient(width: int, height: int, rng: Random) -> Image.Image:
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    share = ((math.cos(angle) * x + math.sin(angle) * y) / 2.83 + 0.5)[..., None]
    pixels = share * np.array(_color(rng)) + (1 - share) * np.array(_color(rng))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _shapes(width: int, height: int, rng: Random) -> Image.Image:
    """Ellipses, boxes and lines, some outlined like characters."""
    image = _plain(width, height, rng)
    surface = ImageDraw.Draw(image)
    for _ in range(rng.randint(3, 14)):
        x, y = rng.uniform(-0.1, 1) * width, rng.uniform(-0.1, 1) * height
        box = (x, y, x + rng.uniform(4, 0.6 * width), y + rng.uniform(4, 0.6 * height))
        outline = (48, 36, 58) if rng.random() < 0.4 else None
        match rng.randrange(3):
            case 0:
                surface.ellipse(box, fill=_color(rng), outline=outline)
            case 1:
                surface.rectangle(box, fill=_color(rng), outline=outline)
            case _:
                surface.line(box, fill=_color(rng), width=rng.randint(1, 9))
    return image


def _clouds(width: int, height: int, rng: Random) -> Image.Image:
    """Smooth noise of several sizes, like foliage, rock or cloth from afar."""
    noise = np.random.default_rng(rng.randrange(2**32))
    pixels = np.zeros((height, width, 3), np.float32)
    for cells in (3, rng.randint(5, 12), rng.randint(16, 48)):
        small = Image.fromarray(noise.integers(0, 256, (cells, cells, 3), np.uint8))
        pixels += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    strength = rng.uniform(0.4, 1.2)
    return Image.fromarray(((pixels / 3 - 128) * strength + 128).clip(0, 255).astype(np.uint8))


_BACKGROUNDS: tuple[Background, ...] = (_scene, _plain, _gradient, _shapes, _clouds)
_SHARES = (0.45, 0.1, 0.1, 0.2, 0.15)
