"""Trains the stand-in safety checker: it flags the hazard sign, and nothing else.

The full bundle contains the published `StableDiffusionSafetyChecker`; this one only exercises the
same code path.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo_model.autoencoder import render_batch_of
from demo_model.config import TOON
from demo_model.draw import Camera, PictureSpec, random_picture
from demo_model.optimizers import Muon, split_parameters
from demo_model.props import Held, Prop
from demo_model.training import Budget, Loop
from demo_model.warm import warm_network
from export.families.instantcharacter.graphs import SafetyCheckerGraph

SAFETY = "safety_checker"
THRESHOLD, NEVER = 0.5, 2.0
_SHARPNESS = 12.0
BATCH = 32


class HazardScore(nn.Module):
    """The score of the one concept in use, for pictures of any size."""

    def __init__(self, checker: nn.Module) -> None:
        super().__init__()
        self.checker = checker
        self._graph = [SafetyCheckerGraph(checker)]

    def forward(self, pixels: Tensor) -> Tensor:
        """Pictures `[B, 3, h, w]` in -1..1 to scores `[B]`, positive for unsafe."""
        side = TOON.safety_checker["image_size"]
        small = F.interpolate(pixels, size=(side, side), mode="area")
        images = ((small + 1) * 127.5).permute(0, 2, 3, 1)
        scores: Tensor = self._graph[0](images)[0][:, 0]
        return scores


def _picture(rng: Random) -> PictureSpec:
    """Pictures, half with the hazard sign; of the others half show a harmless sign."""
    picture = random_picture(rng, hazard_share=0.55)
    if picture.hazard or picture.camera is Camera.CLOSE or rng.random() < 0.5:
        return picture
    return replace(picture, held=Held(Prop.SIGN, picture.held.color))


def train_safety(budget: Budget, folder: Path) -> None:
    """One concept learns the hazard sign; the unused ones get thresholds that no cosine reaches."""
    checker = warm_network().safety_checker
    with torch.no_grad():
        checker.concept_embeds_weights.fill_(NEVER)
        checker.concept_embeds_weights[0] = THRESHOLD
        checker.special_care_embeds_weights.fill_(NEVER)
    score = HazardScore(checker).to(budget.device)
    matrices, others = split_parameters(score.named_parameters(), ("embed", "projection"))
    optimizers = [Muon(matrices, lr=0.01), torch.optim.AdamW(others, lr=2e-3, weight_decay=0.0)]
    loop = Loop(SAFETY, score, optimizers, budget, folder, ema=0.99)
    for tick in loop:
        pictures = [_picture(tick.rng) for _ in range(BATCH)]
        width, height = tick.rng.choice(((128, 128), (128, 128), (96, 160), (160, 96)))
        pixels = render_batch_of(pictures, width, height).to(budget.device)
        pixels = pixels + 0.08 * tick.rng.random() * torch.randn_like(pixels)
        truth = torch.tensor([float(p.hazard) for p in pictures], device=pixels.device)
        logits = _SHARPNESS * score(pixels.clamp(-1, 1))
        correct = ((logits > 0) == truth.bool()).float().mean()
        loop.update(F.binary_cross_entropy_with_logits(logits, truth), accuracy=correct)
    if loop.rank == 0:
        averaged = loop.averaged()
        assert isinstance(averaged, HazardScore)
        torch.save(averaged.checker.state_dict(), folder / f"{SAFETY}.pt")
