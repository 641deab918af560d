"""The runtime that a bundle names."""

from __future__ import annotations

from pathlib import Path

from castmate.engines.base import Runtime
from castmate.engines.bundle import Bundle
from castmate.engines.plan import Flavour


def open_runtime(
    bundle: Bundle,
    *,
    threads: int = 0,
    device: int = 0,
    instances: int = 1,
    gpu_memory: int | None = None,
    cache_bytes: int = 0,
    kernels: Path | None = None,
) -> Runtime:
    """Open what runs the graphs of a bundle; only that is imported.

    Args:
        bundle: Whose `engine` decides.
        threads: CPU threads of ONNX Runtime; 0 takes every core.
        device: Number of the GPU for plans.
        instances: How many runtimes share it.
        gpu_memory: The most bytes of it to take, all together; by default what is free.
        cache_bytes: What encoded prompts and references may take of these.
        kernels: A folder for kernels that TensorRT-RTX compiles on this machine.

    Raises:
        BundleMismatch: It cannot run here, with the reason.
    """
    if bundle.manifest.engine in [flavour.value for flavour in Flavour]:
        from castmate.engines.tensorrt import TensorRTRuntime

        return TensorRTRuntime(
            bundle,
            device=device,
            instances=instances,
            gpu_memory=gpu_memory,
            cache_bytes=cache_bytes,
            kernels=kernels,
        )
    from castmate.engines.onnxruntime import OnnxRuntime

    return OnnxRuntime(bundle, threads)
