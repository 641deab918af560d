"""Trains LoRAs of the demo model: `python -m demo_model.adapt night-ink | pastel | few-steps`.

Each learns from the model's own drawings. A style's teacher is the model with its picture
recoloured (`demo_model.looks`); that of few-steps is the model taking many steps.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F

from demo_model.checkpoint import TOKENIZER, load_network
from demo_model.looks import LOOKS, Recolouring, fidelity_db, fit_look
from demo_model.lora import Lora
from demo_model.training import CACHE, Budget, Loop, run_workers
from demo_model.trajectories import (
    CHARACTERS,
    Batch,
    Requests,
    schedule,
    steps_through,
    velocity,
)
from export.families.instantcharacter.network import InstantCharacter

STYLE_RANK, FEW_RANK = 8, 16
FEW_STEPS: Final = "few-steps"
STYLE_BATCH, STYLE_STEPS, STYLE_ROWS = 4, 10, 16
FEW_BATCH, TEACHER_STEPS = 8, 28


def train_style(requests: Requests, name: str, budget: Budget, folder: Path) -> Lora:
    """Train a style, which draws what the network draws in the colours of a look.

    At each step from noise to a picture, the network splits its input into noise and picture. With
    the picture recoloured, these give the student's input and its target, so each of its steps has
    an exact answer.

    Args:
        requests: What both draw, with the frozen network.
        name: The look's name.
        budget: How long to train.
        folder: For checkpoints, from which an interrupted training resumes.
    """
    network = requests.network
    recolouring = fit_look(network, requests, name)
    print(f"{name}: latents keep {fidelity_db(network, requests, name, recolouring):.1f} dB")
    lora = Lora(network, STYLE_RANK)
    loop = _loop(f"style-{name}", lora, budget, folder)
    for tick in loop:
        batch = requests.draw(tick.rng, STYLE_BATCH)
        shown = _recoloured_steps(network, batch, recolouring)
        rows = torch.randperm(len(shown.x))[:STYLE_ROWS]
        some = _rows(batch, rows % STYLE_BATCH)
        with lora.applied():
            found = velocity(network, some, shown.x[rows], shown.sigma[rows])
        loop.update(F.mse_loss(found, shown.target[rows]))
    return _averaged(loop)


class _Shown:
    """A student's inputs and targets, with the rows of every step in order."""

    def __init__(self, rows: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> None:
        self.x, self.sigma, self.target = (torch.cat(parts) for parts in zip(*rows, strict=True))


@torch.no_grad()
def _recoloured_steps(network: InstantCharacter, batch: Batch, recolouring: Recolouring) -> _Shown:
    x, rows = batch.noise, []
    for now, following in pairwise(schedule(network, STYLE_STEPS, batch.grid)):
        sigma = now.expand(len(x))
        v = velocity(network, batch, x, sigma)
        picture, noise = recolouring(x - now * v), x + (1 - now) * v
        rows.append(((1 - now) * picture + now * noise, sigma, noise - picture))
        x = x + (following - now) * v
    return _Shown(rows)


def train_few_steps(requests: Requests, steps: int, budget: Budget, folder: Path) -> Lora:
    """Train a LoRA that does in one step what the network does in several.

    The student follows its own trajectory, so that it learns from states that it will meet. From
    each, the network continues with its own many steps; its state at the student's next noise level
    is the student's target.

    Args:
        requests: What both draw, with the frozen network.
        steps: How many steps the student takes.
        budget: How long to train.
        folder: For checkpoints, from which an interrupted training resumes.
    """
    network = requests.network
    lora = Lora(network, FEW_RANK)
    loop = _loop(f"{FEW_STEPS}-{steps}", lora, budget, folder)
    inside = -(-TEACHER_STEPS // steps)
    for tick in loop:
        batch = requests.draw(tick.rng, FEW_BATCH)
        sigmas = schedule(network, steps, batch.grid)
        step = tick.rng.randrange(steps)
        with lora.applied():
            x = steps_through(network, batch, batch.noise, sigmas[: step + 1])
        start, end = sigmas[step], sigmas[step + 1]
        between = torch.lerp(start, end, torch.linspace(0, 1, inside + 1))
        target = (steps_through(network, batch, x, between) - x) / (end - start)
        with lora.applied():
            found = velocity(network, batch, x, start.expand(len(x)))
        loop.update(F.mse_loss(found, target))
    return _averaged(loop)


def _loop(name: str, lora: Lora, budget: Budget, folder: Path) -> Loop:
    optimizer = torch.optim.AdamW(lora.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    return Loop(name, lora, [optimizer], budget, folder, ema=0.98, decay_from=0.4)


def _rows(batch: Batch, rows: torch.Tensor) -> Batch:
    return Batch(
        batch.grid,
        batch.prompt_embeds[rows],
        batch.pooled[rows],
        batch.features[rows],
        batch.noise[rows],
        [batch.pictures[row] for row in rows.tolist()],
    )


def _averaged(loop: Loop) -> Lora:
    lora = loop.averaged()
    assert isinstance(lora, Lora)
    return lora


def train(
    what: str, steps: int, checkpoint: Path | None, budget: Budget, folder: Path, out: Path
) -> None:
    """Train one LoRA and write its file.

    Args:
        what: A look, or `FEW_STEPS`.
        steps: How many steps `FEW_STEPS` takes.
        checkpoint: Weights of the network; by default those in the bundle.
        budget: How long to train.
        folder: For checkpoints.
        out: The file.
    """
    if checkpoint is None:
        requests = Requests.of_shipped(count=CHARACTERS)
    else:
        network, tokenizer = load_network(checkpoint), checkpoint.with_name(TOKENIZER)
        requests = Requests.of_trained(network, tokenizer, count=CHARACTERS)
    if what == FEW_STEPS:
        lora = train_few_steps(requests, steps, budget, folder)
    else:
        lora = train_style(requests, what, budget, folder)
    lora.save(out)
    print(out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo_model.adapt", description=__doc__)
    parser.add_argument("what", choices=[*LOOKS, FEW_STEPS])
    parser.add_argument("--few", type=int, default=8, help="steps of few-steps")
    parser.add_argument("--minutes", type=float, default=10.0, help="processor time")
    parser.add_argument("--steps", type=int, help="updates of each stage, instead of minutes")
    parser.add_argument("--checkpoint", type=Path, help="default: the weights in the bundle")
    parser.add_argument("--folder", type=Path, default=CACHE, help="checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="the LoRA, .safetensors")
    given = parser.parse_args()
    budget = Budget(minutes=given.minutes, steps=given.steps)
    given.folder.mkdir(parents=True, exist_ok=True)
    run_workers(train, 1, given.what, given.few, given.checkpoint, budget, given.folder, given.out)


if __name__ == "__main__":
    main()
