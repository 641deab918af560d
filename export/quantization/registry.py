"""The one list of quantization schemes; everything else asks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from export.errors import ExportError
from export.precision import Precision
from export.quantization.fp8 import FP8, FP8_ATTENTION
from export.quantization.none import NONE
from export.quantization.scheme import Kernel, Limits, Scheme

SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in (NONE, FP8, FP8_ATTENTION)}
"""By name, in the order that help texts list them."""


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Every scheme's operators in ONNX."""
    return {
        torch_operator: onnx_operator
        for scheme in SCHEMES.values()
        for torch_operator, onnx_operator in scheme.translations.items()
    }


def kernel_for(stored: int, *, attention: bool) -> Kernel | None:
    """What computes with operands of an ONNX element type; None where no scheme stores it.

    Args:
        stored: The element type.
        attention: Whether attentions over such operands are meant; otherwise products.
    """
    kernels = (kernel for scheme in SCHEMES.values() for kernel in scheme.kernels)
    found = (k for k in kernels if k.stored == stored and k.attention == attention)
    return next(found, None)


def limits_of(precision: Precision, quantization: Scheme) -> Limits:
    """What a scheme accepts at a precision.

    PSNR of bf16 and below is loose on purpose: without any loss it is fragile, 19 dB between two
    exact kernels at full size. `benchmarks.quantization` compares with such a control.

    Raises:
        ExportError: It has no limits for it.
    """
    if (limits := quantization.limits.get(precision)) is None:
        known = ", ".join(f"{p} with {s}" for s in SCHEMES.values() for p in s.limits)
        raise ExportError(f"No limits for {precision} with {quantization}; there are {known}.")
    return limits
