"""The choices of an export: what weights and arithmetic are stored as, and what FP8 covers."""

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
    def description(self) -> str:
        """For `bundle.json`."""
        return "fp16 weights, fp32 arithmetic" if self is Precision.FP16_WEIGHTS else self.value


class Quantization(StrEnum):
    """What of the transformer is FP8 (E4M3); the rest has the export's `Precision`."""

    NONE = "none"
    FP8 = "fp8"
    """Linear layers: attention, MLP and the subject branch."""
    FP8_ATTENTION = "fp8-attention"
    """Linear layers and both attentions of every block. Not for Hopper."""


def convert(network: nn.Module, dtype: torch.dtype) -> None:
    """Bring every weight of `network` to `dtype` in place, FP8 weights excepted."""
    fp8 = torch.float8_e4m3fn
    tensors = [*network.parameters(), *network.buffers()]
    with torch.no_grad():
        for tensor in tensors:
            if tensor.is_floating_point() and tensor.dtype not in (dtype, fp8):
                tensor.data = tensor.data.to(dtype)
