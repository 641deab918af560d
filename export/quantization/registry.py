"""The one list of quantization schemes; everything else asks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from castmate.engines.plan import Flavour
from export.errors import ExportError
from export.precision import Precision
from export.quantization.fp8 import FP8, FP8_ATTENTION
from export.quantization.int4 import INT4
from export.quantization.int8 import INT8
from export.quantization.none import NONE
from export.quantization.nvfp4 import NVFP4
from export.quantization.scheme import Kernel, Scheme
from export.quantization.svdquant import SVDQUANT

SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme for scheme in (NONE, FP8, FP8_ATTENTION, NVFP4, SVDQUANT, INT8, INT4)
}
"""By name, in the order that help texts list them."""


def translations(*, for_cpu: bool = False) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Every scheme's operators in ONNX.

    Args:
        for_cpu: As ONNX Runtime computes them on a CPU; else as TensorRT does.
    """
    tables = [scheme.translations for scheme in SCHEMES.values()]
    if for_cpu:
        tables += [scheme.cpu_translations for scheme in SCHEMES.values()]
    return {operator: written for table in tables for operator, written in table.items()}


def schemes_for(flavour: Flavour, target: str) -> list[Scheme]:
    """The schemes that a GPU has all kernels for and gains from; `NONE` where there is none.

    Args:
        flavour: Which TensorRT.
        target: Compute capability of the GPU.
    """
    able = [scheme for scheme in SCHEMES.values() if scheme.runs_on(flavour, target)]
    return [scheme for scheme in able if target in scheme.gains] or [NONE]


def kernel_for(stored: int, *, attention: bool) -> Kernel | None:
    """What computes with operands of an ONNX element type; None where no scheme stores it.

    Args:
        stored: The element type.
        attention: Whether attentions over such operands are meant; otherwise products.
    """
    kernels = (kernel for scheme in SCHEMES.values() for kernel in scheme.kernels)
    found = (k for k in kernels if k.stored == stored and k.attention == attention)
    return next(found, None)


def least_psnr_db(precision: Precision, quantization: Scheme) -> float:
    """What a picture has beside that in fp32, at least.

    Loose on purpose in bf16 and below: without any loss it is fragile, 19 dB between two exact
    kernels at full size. `benchmarks.schemes` compares with such controls.

    Raises:
        ExportError: It is not known of this pair.
    """
    if (found := quantization.psnr_db.get(precision)) is None:
        known = ", ".join(f"{p} with {s}" for s in SCHEMES.values() for p in s.psnr_db)
        raise ExportError(f"No limits for {precision} with {quantization}; there are {known}.")
    return found
