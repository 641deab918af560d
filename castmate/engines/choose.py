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
    """Open the runtime of a bundle's graphs, importing no other.

    Args:
        bundle: Its `engine` decides.
        threads: CPU threads of ONNX Runtime; 0 uses every core.
        share: How much of which GPU plans may take.
        data_dir: Keeps which plans were proved right, see `castmate.engines.proof`, and their
            compiled kernels; with None, both are redone at every load.
        prove: Whether plans are compared with their golden tensors when they are loaded. ONNX
            Runtime's graphs are not.

    Raises:
        BundleMismatch: It cannot run here; gives the reason.
    """
    if bundle.manifest.engine in list(Flavour):
        from castmate.engines.tensorrt import TensorRTRuntime

        runtime = TensorRTRuntime(bundle, share=share, kernels=data_dir and data_dir / "kernels")
        proofs = data_dir and data_dir / "proofs"
        return ProvenRuntime(runtime, bundle, proofs) if prove else runtime
    from castmate.engines.onnxruntime import OnnxRuntime

    return OnnxRuntime(bundle, threads)
