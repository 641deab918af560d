"""The runtime that a bundle names."""

from __future__ import annotations

from pathlib import Path

from castmate.engines.base import Runtime
from castmate.engines.bundle import Bundle
from castmate.engines.plan import Flavour
from castmate.engines.proof import ProvenRuntime


def open_runtime(
    bundle: Bundle,
    *,
    threads: int = 0,
    device: int = 0,
    instances: int = 1,
    gpu_memory: int | None = None,
    cache_bytes: int = 0,
    kernels: Path | None = None,
    proofs: Path | None = None,
    prove: bool = True,
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
        proofs: A folder to remember in which plans were right; see `castmate.engines.proof`.
        prove: Whether plans are compared with their golden tensors when they are loaded. What a CPU
            computes is not.

    Raises:
        BundleMismatch: It cannot run here, with the reason.
    """
    if bundle.manifest.engine in list(Flavour):
        from castmate.engines.tensorrt import TensorRTRuntime

        runtime = TensorRTRuntime(
            bundle,
            device=device,
            instances=instances,
            gpu_memory=gpu_memory,
            cache_bytes=cache_bytes,
            kernels=kernels,
        )
        return ProvenRuntime(runtime, bundle, proofs) if prove else runtime
    from castmate.engines.onnxruntime import OnnxRuntime

    return OnnxRuntime(bundle, threads)
