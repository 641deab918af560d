"""A small CNN that names what a picture shows; trained on renders only, never on generated ones.

It names the character and its surroundings, and says whether the picture is well formed: it counts
limbs and eyes and looks for thin parts. More than half of its training pictures are wrong on
purpose; `python -m demo_model.judge` reports how many of those it catches.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo_model.characters import held_out_characters
from demo_model.draw import PictureSpec, random_picture
from demo_model.flaws import FORM_CLASSES, LIMBS, THIN, Flaw, draw_flawed, flaws_of, seen_labels
from demo_model.labels import IGNORED, NUM_CLASSES, stack_labels
from demo_model.optimizers import Muon, split_parameters
from demo_model.pretrain import Heads
from demo_model.training import Budget, Loop

JUDGE = "judge"
JUDGE_FILE = f"{JUDGE}.safetensors"
SHIPPED = Path(__file__).with_name(JUDGE_FILE)
"""Shipped so that anyone can judge the bundle without training."""
LEVELS, WIDTH, GRID = 5, 24, 8
BATCH = 24
CLASSES = {**NUM_CLASSES, **FORM_CLASSES}
WELL_FORMED = {"arms": 2, "legs": 2, "eyes": 2, "figures": 1, "face": 1, "sharp": 1}


class Judge(nn.Module):
    """Levels of convolutions, then a linear classifier for each attribute.

    Attributes:
        px: Side of the square that it sees.
    """

    px = 256

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for level in range(LEVELS):
            out = (level + 1) * WIDTH
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
        self.pool = nn.AdaptiveAvgPool2d(GRID)
        self.mix = nn.Linear(channels * GRID**2, 192)
        self.read = Heads(192, CLASSES)

    def features(self, pixels: Tensor) -> Tensor:
        """Pictures `[B, 3, h, w]` in -1..1 to `[B, 192]`."""
        x = self.pool(self.body(pixels).float()).flatten(1)
        return F.silu(self.mix(x))

    @torch.no_grad()
    def predict(self, pixels: Tensor) -> dict[str, Tensor]:
        """Pictures of any size to a class number for each attribute."""
        x = self.features(shrink(pixels, self.px))
        return {name: head(x).argmax(-1) for name, head in self.read.heads.items()}


def shrink(pixels: Tensor, px: int) -> Tensor:
    """Crops the middle square and resizes it, because the judge looks at the character."""
    side = min(pixels.shape[-2:])
    top, left = (pixels.shape[-2] - side), (pixels.shape[-1] - side) // 2
    top = round(top * 0.85)
    square = pixels[..., top : top + side, left : left + side]
    return F.interpolate(square, size=(px, px), mode="area")


def malformed(seen: Mapping[str, Tensor], labels: Mapping[str, int], index: int) -> list[str]:
    """What the judge finds wrong with the form of one picture.

    Args:
        seen: Its verdict on a batch.
        labels: What the picture should show, see `demo_model.flaws.seen_labels`.
        index: The picture's place in the batch.
    """
    found = [
        name
        for name, right in WELL_FORMED.items()
        if labels[name] != IGNORED and int(seen[name][index]) != right
    ]
    found += [name for name in THIN if labels[name] == 1 and int(seen[name][index]) == 0]
    return found


def _pixels(images: list[Image.Image]) -> Tensor:
    batch = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return batch.permute(0, 3, 1, 2).float() / 127.5 - 1


def flawed_batch(rng: Random, pictures: list[PictureSpec], px: int) -> tuple[Tensor, list[Flaw]]:
    """Renders, more than half of them with a flaw."""
    width, height = rng.choice(((px, px), (px, px), (px, px * 3 // 2), (px * 3 // 2, px)))
    flaws = [_flaw(rng, picture) for picture in pictures]
    images = [
        draw_flawed(picture, flaw, rng, width, height)
        for picture, flaw in zip(pictures, flaws, strict=True)
    ]
    return shrink(_pixels(images), px), flaws


def _flaw(rng: Random, picture: PictureSpec) -> Flaw:
    """A flaw; a wrong limb is the hardest to see, and so the most frequent."""
    flaws = flaws_of(picture) if rng.random() < 0.6 else [Flaw.NONE]
    return rng.choices(flaws, weights=[4 if flaw in LIMBS else 1 for flaw in flaws])[0]


def train_judge(budget: Budget, folder: Path) -> None:
    """Trains on fresh renders of training characters in a few formats."""
    torch.manual_seed(0)
    judge = Judge().to(budget.device)
    matrices, others = split_parameters(judge.named_parameters(), ("heads",))
    optimizers = [Muon(matrices, lr=0.015), torch.optim.AdamW(others, lr=2e-3, weight_decay=0.01)]
    loop = Loop(JUDGE, judge, optimizers, budget, folder, ema=0.99)
    for tick in loop:
        pictures = [random_picture(tick.rng) for _ in range(BATCH)]
        pixels, flaws = flawed_batch(tick.rng, pictures, judge.px)
        if tick.rng.random() < 0.3:  # generated pictures are a little softer than renders
            pixels = F.interpolate(F.avg_pool2d(pixels, 2), scale_factor=2, mode="bilinear")
        pixels = (pixels + 0.04 * torch.randn_like(pixels)).to(budget.device)
        rows = [seen_labels(p, flaw) for p, flaw in zip(pictures, flaws, strict=True)]
        labels = {k: v.to(budget.device) for k, v in stack_labels(rows).items()}
        with torch.autocast(budget.device, torch.bfloat16):
            x = judge.features(pixels).float()
        loss, accuracies = judge.read(x, labels)
        loop.update(loss, **accuracies)
    if loop.rank == 0:
        save_file(loop.averaged().half().state_dict(), folder / JUDGE_FILE)


def load_judge(path: Path = SHIPPED) -> Judge:
    """A trained judge, whose weights are stored in fp16."""
    judge = Judge().half()
    judge.load_state_dict(load_file(path))
    return judge.float().eval()


def caught(judge: Judge, count: int, px: int = 512) -> dict[str, float]:
    """For each flaw the share of held-out pictures that the judge calls malformed.

    Without a flaw that is the share of false alarms.
    """
    rng = Random("caught")
    hits: dict[str, list[bool]] = defaultdict(list)
    for spec in held_out_characters(count):
        picture = random_picture(rng, spec)
        for flaw in (Flaw.NONE, *flaws_of(picture)):
            pixels = _pixels([draw_flawed(picture, flaw, rng, px, px)])
            seen = judge.predict(pixels)
            hits[flaw].append(bool(malformed(seen, seen_labels(picture), 0)))
    return {flaw: round(sum(found) / len(found), 3) for flaw, found in sorted(hits.items())}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo_model.judge", description=__doc__)
    parser.add_argument("judge", type=Path, help="a trained judge's file")
    parser.add_argument("--count", type=int, default=100, help="held-out pictures (default 100)")
    given = parser.parse_args()
    for flaw, share in caught(load_judge(given.judge), given.count).items():
        print(f"{flaw}: {share:.2f}")


if __name__ == "__main__":
    main()
