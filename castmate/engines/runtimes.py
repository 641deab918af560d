"""Which runtime runs a bundle."""

from __future__ import annotations

from castmate.engines.base import Runtime
from castmate.engines.bundle import Bundle
from castmate.errors import BundleMismatch


def open_runtime(bundle: Bundle, *, threads: int = 0) -> Runtime:
    """The runtime that the manifest names; heavy imports wait until then.

    Args:
        bundle: The model.
        threads: CPU threads of one run; 0 takes every core.

    Raises:
        BundleMismatch: This version of castmate has no such runtime.
    """
    if bundle.manifest.engine == "onnxruntime":
        from castmate.engines.onnxruntime import OnnxRuntime

        return OnnxRuntime(bundle, threads)
    raise BundleMismatch(
        f"Bundle {bundle.name!r} is for engine {bundle.manifest.engine!r}; this version of "
        "castmate runs onnxruntime. Install the version that made it: "
        f"{bundle.manifest.created_with.get('castmate', 'unknown')}."
    )
