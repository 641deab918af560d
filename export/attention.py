"""Scaled dot-product attention as a module, so that it can be recorded and replaced by name."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ScaledDotProduct(nn.Module):
    """`softmax(q k^T / sqrt(d)) v`; holds no weights."""

    def __init__(self, num_keys: int | None = None) -> None:
        """An attention.

        Args:
            num_keys: N, where it is always the same.
        """
        super().__init__()
        self.num_keys = num_keys

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """`[B, heads, S, d]` queries, `[B, heads, N, d]` keys and values to `[B, heads, S, d]`."""
        return F.scaled_dot_product_attention(query, key, value, mask)
