"""Muon for matrices and convolution kernels, AdamW for everything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are orthogonalised by a Newton-Schulz iteration.

    Kernels of more than two dimensions are treated as `[out, rest]`; equal shapes are
    orthogonalised in one batch.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        del closure
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for param in group["params"]:
                if param.grad is not None:
                    rows = param.shape[0]
                    by_shape[(rows, param.numel() // rows)].append(param)
            for shape, params in by_shape.items():
                self._update(params, shape, group)

    def _update(
        self, params: list[nn.Parameter], shape: tuple[int, int], group: dict[str, Any]
    ) -> None:
        moments = []
        for param in params:
            state = self.state[param]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(param)
            momentum: Tensor = state["momentum"]
            assert param.grad is not None
            momentum.lerp_(param.grad, 1 - group["momentum"])
            moments.append(param.grad.lerp(momentum, group["momentum"]).reshape(shape))
        updates = _orthogonal(torch.stack(moments))
        size = max(1.0, shape[0] / shape[1]) ** 0.5
        for param, update in zip(params, updates, strict=True):
            param.add_(update.reshape(param.shape).to(param.dtype), alpha=-group["lr"] * size)


def _orthogonal(matrices: Tensor, iterations: int = 5) -> Tensor:
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    wide = x.shape[-2] > x.shape[-1]
    if wide:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if wide else x).float()


def split_parameters(
    named: Iterable[tuple[str, nn.Parameter]], plain: tuple[str, ...] = ()
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Separates hidden matrices (for Muon) from everything else (for AdamW).

    Args:
        named: Parameters with their names.
        plain: Substrings of names that go to AdamW although they are matrices.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, param in named:
        if not param.requires_grad:
            continue
        hidden = param.ndim >= 2 and min(param.shape[0], param[0].numel()) > 8
        (matrices if hidden and not any(p in name for p in plain) else others).append(param)
    return matrices, others
