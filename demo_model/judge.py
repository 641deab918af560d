"""A small CNN that names what a picture shows; trained on renders only, never on generated ones."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo_model.autoencoder import render_batch_of
from demo_model.characters import random_character
from demo_model.draw import random_picture
from demo_model.labels import NUM_CLASSES, picture_labels, stack_labels
from demo_model.optimizers import Muon, split_parameters
from demo_model.pretrain import Heads
from demo_model.training import Budget, Loop

JUDGE = "judge"
JUDGE_FILE = f"{JUDGE}.safetensors"
SHIPPED = Path(__file__).with_name(JUDGE_FILE)
"""Shipped so that anybody with the bundle can judge it without training."""
JUDGE_PX = 128
BATCH = 24
NAMES = tuple(NUM_CLASSES)


class Judge(nn.Module):
    """Four levels of convolutions, then a linear classifier for each attribute."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out in (width, 2 * width, 3 * width, 4 * width):
            layers += [
                nn.Conv2d(channels, out, 3, padding=1, stride=2),
                nn.GroupNorm(8, out),
                nn.SiLU(),
                nn.Conv2d(out, out, 3, padding=1),
                nn.GroupNorm(8, out),
                nn.SiLU(),
            ]
            channels = out
        self.body = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.mix = nn.Linear(channels * 16, 192)
        self.read = Heads(192, NAMES)

    def features(self, pixels: Tensor) -> Tensor:
        """Pictures `[B, 3, h, w]` in -1..1 to `[B, 192]`."""
        x = self.pool(self.body(pixels).float()).flatten(1)
        return F.silu(self.mix(x))

    @torch.no_grad()
    def predict(self, pixels: Tensor) -> dict[str, Tensor]:
        """Pictures of any size to a class number for each attribute."""
        x = self.features(shrink(pixels))
        return {name: head(x).argmax(-1) for name, head in self.read.heads.items()}


def shrink(pixels: Tensor) -> Tensor:
    """Crops the middle square and resizes it, because the judge looks at the character."""
    side = min(pixels.shape[-2:])
    top, left = (pixels.shape[-2] - side), (pixels.shape[-1] - side) // 2
    top = round(top * 0.85)
    square = pixels[..., top : top + side, left : left + side]
    return F.interpolate(square, size=(JUDGE_PX, JUDGE_PX), mode="area")


def train_judge(budget: Budget, folder: Path) -> None:
    """Trains on fresh renders of training characters in a few formats."""
    torch.manual_seed(0)
    judge = Judge().to(budget.device)
    matrices, others = split_parameters(judge.named_parameters(), ("heads",))
    optimizers = [Muon(matrices, lr=0.015), torch.optim.AdamW(others, lr=2e-3, weight_decay=0.01)]
    loop = Loop(JUDGE, judge, optimizers, budget, folder, ema=0.99)
    for tick in loop:
        pictures = [
            random_picture(tick.rng, random_character(tick.rng, held_out=False))
            for _ in range(BATCH)
        ]
        width, height = tick.rng.choice(((256, 256), (256, 256), (192, 320), (320, 192)))
        pixels = shrink(render_batch_of(pictures, width, height)).to(budget.device)
        pixels = pixels + 0.05 * torch.randn_like(pixels)
        if tick.rng.random() < 0.3:  # generated pictures are softer than renders
            pixels = F.interpolate(F.avg_pool2d(pixels, 2), scale_factor=2, mode="bilinear")
        labels = stack_labels([picture_labels(picture) for picture in pictures])
        with torch.autocast(budget.device, torch.bfloat16):
            x = judge.features(pixels).float()
        loss, accuracies = judge.read(x, labels)
        loop.update(loss, **accuracies)
    if loop.rank == 0:
        save_file(loop.averaged().half().state_dict(), folder / JUDGE_FILE)


def load_judge(path: Path = SHIPPED) -> Judge:
    """A trained judge; its weights are stored in fp16."""
    judge = Judge().half()
    judge.load_state_dict(load_file(path))
    return judge.float().eval()
