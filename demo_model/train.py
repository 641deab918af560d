"""Trains the demo model: `python -m demo_model.train [--stage NAME]`; interrupted runs resume."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from demo_model.assembly import assemble
from demo_model.autoencoder import ENCODER, ENCODER_FILE, train_encoder
from demo_model.checkpoint import TOKENIZER, save_network
from demo_model.data import FEATURES, LatentStatistics, cache_features, cache_latents
from demo_model.decoder import DECODER, REPAIRED, train_decoder
from demo_model.flow import DISTILLED, FLOW, train_distilled, train_flow
from demo_model.identity import train_identity
from demo_model.identity_weights import IDENTITY, IDENTITY_FILE
from demo_model.judge import JUDGE, JUDGE_FILE, train_judge
from demo_model.matte import MATTE, MATTE_FILE, train_matte
from demo_model.pretrain import (
    SUBJECT,
    SUBJECT_FILE,
    pretrain_subject,
)
from demo_model.repair import train_repaired
from demo_model.safety import SAFETY, train_safety
from demo_model.tokens import save_tokenizer
from demo_model.training import CACHE, Budget, run_workers


@dataclass(frozen=True)
class Stage:
    """One stage of the training.

    Attributes:
        run: The stage's function.
        result: File in the cache folder that marks the stage as finished.
        minutes: Processor time of one worker.
        parallel: Whether several workers can share it.
    """

    run: Callable[[Budget, Path], None]
    result: str
    minutes: float = 0.0
    parallel: bool = True


def _latents(budget: Budget, folder: Path) -> None:
    shared = dist.is_initialized()
    rank = dist.get_rank() if shared else 0
    cache_latents(budget, folder, (rank, dist.get_world_size() if shared else 1))
    if shared:
        dist.barrier()
    if rank == 0:
        LatentStatistics.keep(folder)


STAGES: dict[str, Stage] = {
    SAFETY: Stage(train_safety, f"{SAFETY}.pt", 4),
    JUDGE: Stage(train_judge, JUDGE_FILE, 30),
    ENCODER: Stage(train_encoder, ENCODER_FILE, 24),
    DECODER: Stage(train_decoder, f"{DECODER}.pt", 30),
    SUBJECT: Stage(pretrain_subject, SUBJECT_FILE, 100),
    "latents": Stage(_latents, "latents.json"),
    "features": Stage(cache_features, FEATURES, parallel=False),
    FLOW: Stage(train_flow, f"{FLOW}.pt", 200),
    DISTILLED: Stage(train_distilled, f"{DISTILLED}.pt", 40),
    REPAIRED: Stage(train_repaired, f"{REPAIRED}.pt", 22),
    MATTE: Stage(train_matte, MATTE_FILE, 10),
    IDENTITY: Stage(train_identity, IDENTITY_FILE, 15),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo_model.train", description=__doc__)
    parser.add_argument("--stage", choices=list(STAGES), help="run only this stage; default: all")
    parser.add_argument("--minutes", type=float, help="processor time of a stage over all its runs")
    parser.add_argument("--steps", type=int, help="updates of a stage, instead of minutes")
    parser.add_argument("--workers", type=int, default=Budget.workers, help="processes (CPU)")
    parser.add_argument("--device", default=Budget.device, help="cpu or cuda")
    parser.add_argument("--compiled", action="store_true", help="compile what runs most (flow)")
    parser.add_argument("--folder", type=Path, default=CACHE, help="checkpoints and caches")
    arguments = parser.parse_args()
    if arguments.minutes is not None and arguments.stage is None:
        parser.error("--minutes needs --stage: every stage has its own budget")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, stage in STAGES.items():
        if arguments.stage not in (None, name):
            continue
        if arguments.stage is None and (arguments.folder / stage.result).exists():
            print(f"{name}: already done")
            continue
        budget = Budget(
            minutes=stage.minutes if arguments.minutes is None else arguments.minutes,
            steps=arguments.steps,
            workers=arguments.workers if stage.parallel else 1,
            device=arguments.device,
            compiled=arguments.compiled,
        )
        run_workers(stage.run, budget.workers, budget, arguments.folder)
    if all((arguments.folder / stage.result).exists() for stage in STAGES.values()):
        save_tokenizer(arguments.folder / TOKENIZER)
        print(save_network(assemble(arguments.folder), arguments.folder))


if __name__ == "__main__":
    main()
