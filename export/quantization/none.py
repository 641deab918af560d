"""No quantization: every layer has the precision of the export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from export.precision import Precision
from export.quantization.scheme import Measure, Ranges, Scheme


class NoQuantization(Scheme):
    """Replaces no layer."""

    name = "none"
    kernels = ()
    weight_bytes = 0.0
    psnr_db: Mapping[Precision, float] = {
        Precision.FP32: 45,
        Precision.FP16_WEIGHTS: 35,
        Precision.FP16: 30,
        Precision.BF16: 22,
    }
    translations: Mapping[Callable[..., Any], Callable[..., Any]] = {}

    def replaces(self, layer: nn.Module) -> bool:
        """Never."""
        return False

    def ranges(self, name: str, layer: nn.Module) -> Mapping[str, Measure]:
        """None."""
        return {}

    def counterpart(self, module: nn.Module, name: str, ranges: Ranges) -> nn.Module:
        """Never asked for."""
        raise NotImplementedError


NONE = NoQuantization()
