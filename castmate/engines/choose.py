"""The runtime that a bundle names."""

from __future__ import annotations

from castmate.engines.base import Runtime
from castmate.engines.bundle import Bundle
from castmate.engines.plan import Flavour


def open_runtime(bundle: Bundle, *, threads: int = 0, device: int = 0) -> Runtime:
    """Open what runs the graphs of a bundle; only that is imported.

    Args:
        bundle: Whose `engine` decides.
        threads: CPU threads of ONNX Runtime; 0 takes every core.
        device: Number of the GPU for plans.

    Raises:
        BundleMismatch: It cannot run here, with the reason.
    """
    if bundle.manifest.engine in [flavour.value for flavour in Flavour]:
        from castmate.engines.tensorrt import TensorRTRuntime

        return TensorRTRuntime(bundle, device=device)
    from castmate.engines.onnxruntime import OnnxRuntime

    return OnnxRuntime(bundle, threads)
