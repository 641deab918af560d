"""The loop that every stage shares: budget, schedule, averaging, checkpoints, worker processes.

It knows nothing about what is trained.
"""

from __future__ import annotations

import copy
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from castmate.files import open_atomically

CACHE = Path(os.environ.get("CASTMATE_DEMO_CACHE", "~/.cache/castmate/demo_model")).expanduser()


@dataclass(frozen=True)
class Budget:
    """How long a stage trains: minutes of processor time, or an exact number of steps.

    Attributes:
        minutes: Processor time of the first worker over all runs of the stage, so that other work
            on the machine does not shorten a training; ignored when `steps` is given.
        steps: Number of updates; with one worker the result is then reproducible.
        workers: Single-threaded processes that share each batch.
        device: Where to train.
        compiled: Whether stages compile what they run most: minutes at the start of each run, and
            more steps in the same time after that.
    """

    minutes: float = 30.0
    steps: int | None = None
    workers: int = 1
    device: str = "cpu"
    compiled: bool = False


@dataclass(frozen=True)
class Tick:
    """One step of a loop.

    Attributes:
        step: Number of updates done before.
        fraction: Fraction of the budget that is spent, 0 to 1.
        rng: Randomness of this step and worker.
        shared: Randomness of this step that is the same for every worker.
    """

    step: int
    fraction: float
    rng: random.Random
    shared: random.Random


class Loop:
    """Iterates until the budget is spent; resumes from `<folder>/<name>.ckpt`."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        budget: Budget,
        folder: Path,
        *,
        ema: float = 0.999,
        warmup: float = 0.02,
        decay_from: float = 0.4,
        seed: int = 0,
        save_every_s: float = 60.0,
    ) -> None:
        self.name, self.model, self.optimizers, self.budget = name, model, optimizers, budget
        self.path = folder / f"{name}.ckpt"
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.step, self.elapsed = 0, 0.0
        self.ema_decay, self.warmup, self.decay_from = ema, warmup, decay_from
        self.seed, self.save_every_s = seed, save_every_s
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.ema = [p.detach().clone() for p in self.params]
        self.base_lrs = [[g["lr"] for g in o.param_groups] for o in optimizers]
        self.metrics: dict[str, float] = {}
        self._saved = self._logged = time.monotonic()
        self._resume()

    def __iter__(self) -> Iterator[Tick]:
        last = time.process_time()
        while (fraction := self._fraction()) < 1.0:
            scale = min(1.0, fraction / self.warmup) if self.warmup else 1.0
            if fraction > self.decay_from:
                scale = (1 - fraction) / (1 - self.decay_from)
            for optimizer, lrs in zip(self.optimizers, self.base_lrs, strict=True):
                for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                    group["lr"] = lr * max(scale, 1e-3)
            step_seed = f"{self.seed}/{self.name}/{self.step}"
            seed = f"{step_seed}/{self.rank}"
            torch.manual_seed(random.Random(seed).randrange(2**62))
            yield Tick(self.step, fraction, random.Random(seed), random.Random(step_seed))
            now = time.process_time()
            self.elapsed += now - last
            last = now
        self.save()

    def update(self, loss: Tensor, **metrics: float | Tensor) -> None:
        """Back-propagates, averages over the workers, updates the weights and their average."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._average_gradients()
        nn.utils.clip_grad_norm_(self.params, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.ema, [p.detach() for p in self.params], 1 - decay)
        for key, value in {"loss": loss.detach(), **metrics}.items():
            old = self.metrics.get(key)
            self.metrics[key] = float(value) if old is None else 0.97 * old + 0.03 * float(value)
        now = time.monotonic()
        if self.rank == 0 and (now - self._logged > 15 or self.step <= 3):
            self._logged = now
            text = " ".join(f"{k} {v:.4f}" for k, v in self.metrics.items())
            print(
                f"{self.name} {self._own_fraction():6.1%} step {self.step} "
                f"{self.elapsed:.0f} s  {text}",
                flush=True,
            )
        if now - self._saved > self.save_every_s:
            self._saved = now
            self.save()

    def averaged(self) -> nn.Module:
        """A copy of the model with the averaged weights."""
        twin = copy.deepcopy(self.model)
        for param, mean in zip(
            (p for p in twin.parameters() if p.requires_grad), self.ema, strict=True
        ):
            param.data.copy_(mean)
        return twin

    def _own_fraction(self) -> float:
        if self.budget.steps is not None:
            return self.step / max(1, self.budget.steps)
        return self.elapsed / max(1e-6, self.budget.minutes * 60)

    def _fraction(self) -> float:
        fraction = torch.tensor([self._own_fraction()], dtype=torch.float64)
        if self.world > 1:
            dist.broadcast(fraction, src=0)
        return float(fraction)

    def _average_gradients(self) -> None:
        if self.world == 1:
            return
        # A head without an example in one worker's batch may have one in another's.
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.params]
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        flat /= self.world
        offset = 0
        for param, grad in zip(self.params, grads, strict=True):
            param.grad = flat[offset : offset + grad.numel()].view_as(grad)
            offset += grad.numel()

    def save(self) -> None:
        """Writes the checkpoint; a loop saves regularly and at its end."""
        if self.rank != 0:
            return
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "elapsed": self.elapsed,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomically(self.path) as stream:
            torch.save(state, stream)

    def _resume(self) -> None:
        if not self.path.exists():
            return
        state = torch.load(self.path, weights_only=True, map_location=self.budget.device)
        self.model.load_state_dict(state["model"])
        self.ema = state["ema"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.elapsed = state["step"], state["elapsed"]
        print(f"{self.name}: resumed at step {self.step}", flush=True)


def load_averaged(model: nn.Module, folder: Path, name: str) -> None:
    """Fills a model with the weights of a stage: finished, or the average of its checkpoint.

    Raises:
        FileNotFoundError: The stage has not started.
    """
    finished = folder / f"{name}.pt"
    if finished.exists():
        model.load_state_dict(torch.load(finished, weights_only=True))
        return
    state = torch.load(folder / f"{name}.ckpt", weights_only=True)
    model.load_state_dict(state["model"])
    trained = [param for param in model.parameters() if param.requires_grad]
    with torch.no_grad():
        for param, mean in zip(trained, state["ema"], strict=True):
            param.copy_(mean)


def run_workers(target: Callable[..., None], workers: int, *args: Any) -> None:
    """Calls `target(*args)` in this process, or in several that average their gradients.

    On a shared machine, several single-threaded processes are faster than several threads.
    """
    if workers == 1:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        target(*args)
        return
    with tempfile.TemporaryDirectory() as folder:
        spawn(_worker, (workers, f"{folder}/store", target, args), nprocs=workers)


def _worker(
    rank: int, world: int, store: str, target: Callable[..., None], args: tuple[Any, ...]
) -> None:
    # PyTorch ends its workers by SIGINT when the parent dies, and nohup has that signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    target(*args)
    dist.destroy_process_group()
