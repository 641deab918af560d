"""Pre-trains the encoders on the known attributes, so that flow matching starts from features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo_model.captions import full_caption, short_caption, with_unknown_words
from demo_model.characters import random_character
from demo_model.config import NEXT
from demo_model.draw import random_picture
from demo_model.labels import (
    CHARACTER_CLASSES,
    IGNORED,
    NUM_CLASSES,
    character_labels,
    picture_labels,
    stack_labels,
)
from demo_model.optimizers import Muon, split_parameters
from demo_model.subjects import crops, random_reference
from demo_model.tokens import build_tokenizer, encode
from demo_model.training import Budget, Loop
from demo_model.warm import warm_network
from export.families.instantcharacter.network import InstantCharacter

SUBJECT, TEXT = "subject_encoders", "text_encoders"
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
            NEXT.resampler.output_dim * NEXT.resampler.num_queries,
            {name: NUM_CLASSES[name] for name in CHARACTER_CLASSES},
        )


class TextReader(nn.Module):
    """Caption to pooled and token embeddings to attributes."""

    def __init__(self, network: InstantCharacter) -> None:
        super().__init__()
        self.text_encoder, self.text_encoder_2 = network.text_encoder, network.text_encoder_2
        self.read_pooled = Heads(NEXT.text_encoder["projection_dim"], NUM_CLASSES)
        self.read_embeds = Heads(NEXT.text_encoder_2["d_model"], NUM_CLASSES)


def pretrain_subject(budget: Budget, folder: Path) -> None:
    """Both image encoders, projector and resampler learn to name a character's attributes."""
    network = warm_network()
    reader = SubjectReader(network).to(budget.device)
    matrices, others = split_parameters(reader.named_parameters(), _PLAIN)
    optimizers = [Muon(matrices, lr=0.01), torch.optim.AdamW(others, lr=1e-3, weight_decay=0.01)]
    loop = Loop(SUBJECT, reader, optimizers, budget, folder, ema=0.995)
    for tick in loop:
        specs = [random_character(tick.rng, held_out=False) for _ in range(BATCH)]
        views = torch.stack([crops(random_reference(spec, tick.rng)) for spec in specs])
        labels = stack_labels([character_labels(spec) for spec in specs])
        features = network.subject_features(views.to(budget.device))
        steps = 1000 * torch.rand(len(specs), device=features.device)
        tokens = network.subject_resampler(features, steps)
        loss, accuracies = reader.read(tokens.flatten(1), labels)
        loop.update(loss, **accuracies)
    if loop.rank == 0:
        torch.save(loop.averaged().state_dict(), folder / f"{SUBJECT}.pt")


def pretrain_text(budget: Budget, folder: Path) -> None:
    """Both text encoders learn to name what a full caption says."""
    network = warm_network()
    tokenizer = build_tokenizer()
    reader = TextReader(network).to(budget.device)
    matrices, others = split_parameters(reader.named_parameters(), _PLAIN)
    optimizers = [Muon(matrices, lr=0.01), torch.optim.AdamW(others, lr=2e-3, weight_decay=0.01)]
    loop = Loop(TEXT, reader, optimizers, budget, folder, ema=0.99)
    for tick in loop:
        pictures = [random_picture(tick.rng) for _ in range(2 * BATCH)]
        texts, rows = [], []
        for picture in pictures:
            row = picture_labels(picture)
            if tick.rng.random() < 0.6:
                texts.append(full_caption(picture, tick.rng))
            else:
                texts.append(short_caption(picture, tick.rng))
                row |= dict.fromkeys(CHARACTER_CLASSES, IGNORED)
            if tick.rng.random() < 0.15:
                texts[-1] = with_unknown_words(texts[-1], tick.rng)
            rows.append(row)
        ids, labels = encode(tokenizer, texts), stack_labels(rows)
        pooled_loss, _ = reader.read_pooled(network.pooled_projections(ids), labels)
        embeds_loss, accuracies = reader.read_embeds(network.prompt_embeds(ids).mean(1), labels)
        loop.update(pooled_loss + embeds_loss, **accuracies)
    if loop.rank == 0:
        torch.save(loop.averaged().state_dict(), folder / f"{TEXT}.pt")


def load_pretrained(network: InstantCharacter, folder: Path, *, text: bool = True) -> None:
    """Loads the pre-trained encoders into a network."""
    subject = SubjectReader(network)
    subject.load_state_dict(torch.load(folder / f"{SUBJECT}.pt", weights_only=True))
    if text:
        reader = TextReader(network)
        reader.load_state_dict(torch.load(folder / f"{TEXT}.pt", weights_only=True))
