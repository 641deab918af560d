"""Mixed precision that is fast on a CPU: bfloat16 matrices, attention as plain matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def mixed_precision(device: str) -> Iterator[None]:
    """Autocast to bfloat16.

    On a CPU attention is softmax between two products: the backward pass of PyTorch's fused kernel
    is nine times slower in bfloat16 than in float32, and the float32 one slower than these.
    """
    with torch.autocast(device, torch.bfloat16):
        if device == "cpu":
            with _bfloat16_products(), sdpa_kernel(SDPBackend.MATH):
                yield
        else:
            yield


@contextmanager
def _bfloat16_products() -> Iterator[None]:
    # Despite its name, the setting is for CPUs too.
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)
