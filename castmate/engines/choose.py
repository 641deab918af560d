"""The runtime that a bundle names."""

from __future__ import annotations

from pathlib import Path

from castmate.engines.base import Runtime
from castmate.engines.bundle import Bundle
from castmate.engines.plan import Flavour
from castmate.engines.proof import ProvenRuntime
from castmate.engines.residency import WHOLE_GPU, Share


def open_runtime(
    bundle: Bundle,
    *,
    threads: int = 0,
    share: Share = WHOLE_GPU,
    data_dir: Path | None = None,
) -> Runtime:
    """Open what runs the graphs of a bundle; only that is imported.

    Args:
        bundle: Whose `engine` decides.
        threads: CPU threads of ONNX Runtime; 0 takes every core.
        share: What of which GPU plans may take.
        data_dir: Where it is remembered which plans were right, see `castmate.engines.proof`, and
            what was compiled for them; None does both whenever they are loaded.

    Raises:
        BundleMismatch: It cannot run here, with the reason.
    """
    runtime = open_unproven(bundle, threads=threads, share=share, data_dir=data_dir)
    if bundle.manifest.engine in list(Flavour):
        return ProvenRuntime(runtime, bundle, data_dir)
    return runtime  # what a CPU computes, the tests of the bundle have seen


def open_unproven(
    bundle: Bundle,
    *,
    threads: int = 0,
    share: Share = WHOLE_GPU,
    data_dir: Path | None = None,
) -> Runtime:
    """As `open_runtime`; plans are not compared with their golden tensors."""
    if bundle.manifest.engine in list(Flavour):
        from castmate.engines.tensorrt import TensorRTRuntime

        kernels = data_dir and data_dir / "kernels"
        return TensorRTRuntime(bundle, share=share, kernels=kernels)
    from castmate.engines.onnxruntime import OnnxRuntime

    return OnnxRuntime(bundle, threads)
