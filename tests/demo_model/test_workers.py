"""Processes that share a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from demo_model.training import Budget, Loop, run_workers


def train(budget: Budget, folder: Path) -> None:
    """One head has an example in the first worker's batch only."""
    heads = nn.ModuleDict({name: nn.Linear(2, 1, bias=False) for name in ("common", "rare")})
    for weight in heads.parameters():
        nn.init.zeros_(weight)
    loop = Loop("heads", heads, [torch.optim.SGD(heads.parameters(), lr=1.0)], budget, folder)
    seen = ("common", "rare") if loop.rank == 0 else ("common",)
    for _ in loop:
        loop.update(torch.stack([heads[name](torch.ones(1, 2)) for name in seen]).sum())


@pytest.mark.slow
def test_a_head_that_one_worker_has_no_example_of_learns_from_the_other(tmp_path: Path) -> None:
    run_workers(train, 2, Budget(steps=1, workers=2), tmp_path)
    weights = torch.load(tmp_path / "heads.ckpt", weights_only=True)["model"]
    assert weights["common.weight"].abs().min() > 0
    assert torch.allclose(weights["rare.weight"], weights["common.weight"] / 2)
