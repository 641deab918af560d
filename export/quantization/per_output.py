"""Weights of one byte each with a scale for every output: how they are stored and widened.

Such a weight is kept `[in, out]`, as it is multiplied: so it stays one named initializer, where the
exporter would otherwise fold a transposition into an unnamed copy.
"""

from __future__ import annotations

from typing import Any

import onnxscript
import torch
from torch import Tensor

from export.quantization.scheme import Translations


@torch.library.custom_op("castmate::dequantize", mutates_args=())
def dequantize(weight: Tensor, scale: Tensor) -> Tensor:
    """A matrix `[in, out]` times the scale of each output, in the dtype of the scales."""
    return (weight.float() * scale.float()).to(scale.dtype)


@dequantize.register_fake
def _(weight: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(weight, dtype=scale.dtype)


# The exporter calls with its own symbolic values, for which the operators' types have no name.
op: Any = onnxscript.opset23


def _export_dequantize(weight: Any, scale: Any) -> Any:
    return op.DequantizeLinear(weight, scale, axis=1)


TRANSLATIONS: Translations = {torch.ops.castmate.dequantize.default: _export_dequantize}


def stored_scale(amax: float | Tensor, largest: float, like: Tensor) -> Tensor:
    """The scale as it is stored: rounded before anything is divided by it, and never 0.

    Args:
        amax: Largest magnitude that is to be stored, of each output or of all.
        largest: Value that it becomes.
        like: A tensor of the dtype and on the device of the network.
    """
    smallest = torch.finfo(like.dtype).smallest_normal
    wide = torch.as_tensor(amax, dtype=torch.float64, device=like.device) / largest
    return wide.clamp(min=smallest).to(like.dtype)
