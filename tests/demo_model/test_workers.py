"""Processes that share a training."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from demo_model.training import Budget, Loop, run_workers


def draw(budget: Budget, folder: Path) -> None:
    """Each worker sees what the others draw."""
    model = nn.Linear(2, 1)
    for tick in Loop("none", model, [], budget, folder):
        drawn: list[Any] = [None, None]
        dist.all_gather_object(drawn, (tick.shared.random(), tick.rng.random()))
        assert drawn[0][0] == drawn[1][0]
        assert drawn[0][1] != drawn[1][1]
        break


@pytest.mark.slow
def test_workers_share_one_source_of_randomness_and_have_one_of_their_own(tmp_path: Path) -> None:
    run_workers(draw, 2, Budget(steps=1, workers=2), tmp_path)


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


def connect(port: int) -> None:
    """A worker that lives until the test hangs up."""
    with socket.create_connection(("127.0.0.1", port)) as test:
        test.recv(1)


@pytest.mark.slow
def test_workers_end_with_a_training_that_is_killed_under_nohup() -> None:
    code = (
        "from demo_model.training import run_workers\n"
        "from tests.demo_model.test_workers import connect\n"
        "run_workers(connect, 2, {})"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which children inherit
        try:
            training = subprocess.Popen(
                [sys.executable, "-c", code.format(server.getsockname()[1])],
                stderr=subprocess.DEVNULL,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        workers = [server.accept()[0] for _ in range(2)]
        training.kill()
        training.wait(30)
        for worker in workers:
            worker.settimeout(30)
            with worker:
                assert worker.recv(1) == b""
