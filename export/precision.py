"""What the weights of an export are stored as, and what computes with them."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import nn


class Precision(StrEnum):
    """Of weights and arithmetic; what crosses between host and device stays fp32."""

    FP32 = "fp32"
    FP16_WEIGHTS = "fp16-weights"
    """Weights stored in fp16, arithmetic in fp32: half the bytes, for engines without fp16."""
    FP16 = "fp16"
    """Overflows in the full-size transformer; for small networks and for tests."""
    BF16 = "bf16"
    """What FLUX was trained in. ONNX Runtime has no bf16 kernels on a CPU; TensorRT has."""

    @property
    def dtype(self) -> torch.dtype:
        """What torch computes in."""
        narrow = {Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}
        return narrow.get(self, torch.float32)

    @property
    def num_bytes(self) -> int:
        """Bytes of one stored weight."""
        return 4 if self is Precision.FP32 else 2

    @property
    def for_cpu(self) -> bool:
        """Whether ONNX Runtime computes it on a CPU; TensorRT takes the others."""
        return self in (Precision.FP32, Precision.FP16_WEIGHTS)

    @property
    def description(self) -> str:
        """For `bundle.json`."""
        return "fp16 weights, fp32 arithmetic" if self is Precision.FP16_WEIGHTS else self.value


class QuantizedLayer(nn.Module):
    """A layer some of whose tensors have types of their own.

    Attributes:
        keeps_dtype: Their names.
    """

    keeps_dtype: tuple[str, ...] = ()


def convert(network: nn.Module, dtype: torch.dtype) -> None:
    """Bring every weight of `network` to `dtype` in place, but what quantized layers keep."""
    kept = {
        id(module.get_buffer(name))
        for module in network.modules()
        if isinstance(module, QuantizedLayer)
        for name in module.keeps_dtype
    }
    tensors = [*network.parameters(), *network.buffers()]
    with torch.no_grad():
        for tensor in tensors:
            if tensor.is_floating_point() and tensor.dtype != dtype and id(tensor) not in kept:
                tensor.data = tensor.data.to(dtype)
