"""Trains the subject encoders on the known attributes: flow matching starts from features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from demo_model.characters import CharacterSpec, random_character
from demo_model.config import TOON
from demo_model.labels import (
    CHARACTER_CLASSES,
    IGNORED,
    NUM_CLASSES,
    character_labels,
    stack_labels,
)
from demo_model.optimizers import Muon, split_parameters
from demo_model.precision import mixed_precision
from demo_model.subjects import crops, random_reference
from demo_model.training import Budget, Loop
from demo_model.warm import warm_network
from export.families.instantcharacter.network import InstantCharacter

SUBJECT = "subject_encoders"
SUBJECT_FILE = f"{SUBJECT}.safetensors"
BATCH = 24
_PLAIN = ("embed", "position", "token", "shared", "heads", "latents", "relative")


class Heads(nn.Module):
    """A linear classifier for each attribute."""

    def __init__(self, dim: int, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(dim, n) for name, n in classes.items()})

    def forward(self, x: Tensor, labels: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Features and labels to the mean loss and the accuracy of each attribute."""
        losses, accuracies = [], {}
        for name, head in self.heads.items():
            seen = labels[name] != IGNORED
            if seen.any():
                logits, truth = head(x[seen]), labels[name][seen]
                losses.append(F.cross_entropy(logits, truth))
                accuracies[name] = (logits.argmax(-1) == truth).float().mean()
        return torch.stack(losses).mean(), accuracies


class SubjectReader(nn.Module):
    """Reference to subject tokens to attributes."""

    def __init__(self, network: InstantCharacter) -> None:
        super().__init__()
        self.image_encoder = network.image_encoder
        self.image_encoder_2 = network.image_encoder_2
        self.subject_projector = network.subject_projector
        self.subject_resampler = network.subject_resampler
        self.read = Heads(
            TOON.resampler.output_dim * TOON.resampler.num_queries,
            {name: NUM_CLASSES[name] for name in CHARACTER_CLASSES},
        )


def pretrain_subject(budget: Budget, folder: Path) -> None:
    """Both image encoders, projector and resampler learn to name a character's attributes."""
    network = warm_network()
    reader = SubjectReader(network)
    reader.to(budget.device)
    matrices, others = split_parameters(reader.named_parameters(), _PLAIN)
    optimizers = [Muon(matrices, lr=0.01), torch.optim.AdamW(others, lr=1e-3, weight_decay=0.01)]
    loop = Loop(SUBJECT, reader, optimizers, budget, folder, ema=0.995)
    for tick in loop:
        specs = [_character(tick.rng) for _ in range(BATCH)]
        views = torch.stack([crops(random_reference(spec, tick.rng)) for spec in specs])
        labels = stack_labels([character_labels(spec) for spec in specs])
        with mixed_precision(budget.device):
            features = network.subject_features(views.to(budget.device))
            steps = 1000 * torch.rand(len(specs), device=features.device)
            tokens = network.subject_resampler(features, steps)
        loss, accuracies = reader.read(tokens.float().flatten(1), labels)
        loop.update(loss, **accuracies)
    if loop.rank == 0:
        save_model(loop.averaged().half(), str(folder / SUBJECT_FILE))


def _character(rng: Random) -> CharacterSpec:
    """A training character; half of them have hair, whose style is the hardest thing to see."""
    spec = random_character(rng, held_out=False)
    with_hair = rng.random() < 0.34  # a quarter of the others have hair as well
    while with_hair and not spec.has_hair:
        spec = random_character(rng, held_out=False)
    return spec


def load_pretrained(network: InstantCharacter, folder: Path) -> None:
    """Loads the subject encoders of a folder into a network, if they were trained there.

    Text encoders are not among them: what the shipped transformer draws depends on theirs, and they
    learn new words with it.
    """
    if (trained := folder / SUBJECT_FILE).exists():
        load_model(SubjectReader(network), trained)
