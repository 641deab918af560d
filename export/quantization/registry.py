"""The one list of quantization schemes; everything else asks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from export.quantization.fp8 import FP8, FP8_ATTENTION
from export.quantization.none import NONE
from export.quantization.scheme import Kernel, Scheme

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
