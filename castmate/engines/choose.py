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
    prove: bool = True,
) -> Runtime:
    """Open what runs the graphs of a bundle; only that is imported.

    Args:
        bundle: Whose `engine` decides.
        threads: CPU threads of ONNX Runtime; 0 takes every core.
        share: What of which GPU plans may take.
        data_dir: Where it is remembered which plans were right, see `castmate.engines.proof`, and
            what was compiled for them; None does both whenever they are loaded.
        prove: Whether plans are compared with their golden tensors when they are loaded. What a CPU
            computes is not.

    Raises:
        BundleMismatch: It cannot run here, with the reason.
    """
    if bundle.manifest.engine in list(Flavour):
        from castmate.engines.tensorrt import TensorRTRuntime

        runtime = TensorRTRuntime(bundle, share=share, kernels=data_dir and data_dir / "kernels")
        proofs = data_dir and data_dir / "proofs"
        return ProvenRuntime(runtime, bundle, proofs) if prove else runtime
    from castmate.engines.onnxruntime import OnnxRuntime

    return OnnxRuntime(bundle, threads)
