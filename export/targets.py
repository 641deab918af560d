"""Which GPUs an engine can be built for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable

from castmate.engines.plan import Flavour
from export.errors import ExportError
from export.quantization.registry import schemes_for
from export.quantization.scheme import Kernel

RTX_TARGETS = ("8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities that TensorRT-RTX compiles for."""


def found_target() -> str:
    """The compute capability of the GPUs of this machine, as their driver says it.

    Raises:
        ExportError: There is none, or there are several kinds; says what to give instead.
    """
    kinds: set[str] = set()
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        kinds = set(done.stdout.split()) if done.returncode == 0 else set()
    if len(kinds) == 1:
        return kinds.pop()
    why = (
        f"has GPUs of several kinds ({', '.join(sorted(kinds))})" if kinds else "has no NVIDIA GPU"
    )
    raise ExportError(
        f"This machine {why}: name the GPU that the engines are for with --target, such as 8.9 "
        "(L40S, RTX 40), 9.0 (H100, H200), 10.0 (B200) or 12.0 (RTX 50, RTX PRO 6000)."
    )


def check_target(flavour: Flavour, target: str, kernels: Iterable[Kernel] = ()) -> None:
    """Refuse a GPU that the flavour cannot build for or that lacks a kernel.

    Args:
        flavour: Which TensorRT.
        target: Compute capability of the GPU.
        kernels: What the graph or the scheme asks for.

    Raises:
        ExportError: Says what is allowed, and what to use instead.
    """
    if flavour is Flavour.TENSORRT_RTX and target not in RTX_TARGETS:
        hopper = " H100, H200 and B200 need --flavour tensorrt." if target[:1] in ("9", "1") else ""
        raise ExportError(
            f"--target {target}: TensorRT-RTX builds for {', '.join(RTX_TARGETS)}.{hopper}"
        )
    for kernel in kernels:
        if target not in (allowed := kernel.targets[flavour]):
            able = " or ".join(map(str, schemes_for(flavour, target)))
            raise ExportError(
                f"--target {target} has no {kernel.name}; these have: {', '.join(allowed)}. "
                f"Use --quantization {able}, or choose another target."
            )
