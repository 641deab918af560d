"""Mixed precision that is fast on a CPU: bfloat16 matrices, float32 attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class _Float32Attention(TorchFunctionMode):
    """The CPU's backward pass of bfloat16 attention is nine times slower than in float32."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        if func is F.scaled_dot_product_attention:
            query, key, value, *rest = args
            with torch.autocast(query.device.type, enabled=False):
                out = func(query.float(), key.float(), value.float(), *rest, **(kwargs or {}))
            return out.to(query.dtype)
        return func(*args, **(kwargs or {}))


@contextmanager
def mixed_precision(device: str) -> Iterator[None]:
    """Autocast to bfloat16; on a CPU attention stays in float32."""
    with torch.autocast(device, torch.bfloat16):
        if device == "cpu":
            with _Float32Attention():
                yield
        else:
            yield
