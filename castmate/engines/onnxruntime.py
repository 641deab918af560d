"""Graphs on the CPU through ONNX Runtime."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime

from castmate.engines.base import Array, Engine, Tensor
from castmate.engines.bundle import Bundle
from castmate.errors import BundleMismatch

BFLOAT16 = 16
"""NumPy types of ONNX's element types."""
SPIN_US = 20
"""How long a thread waits awake for the next operator of its graph: awake, it takes a fifth off a
step. The default, milliseconds, costs other requests on the same cores half their speed."""


def session_options(threads: int = 0) -> onnxruntime.SessionOptions:
    """The options of every session.

    Args:
        threads: CPU threads of one run; 0 takes every core.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    # Else the inputs of products with four-bit weights are rounded to INT8.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    # A memory plan kept for every size ever requested costs more than it saves: 20 % of the peak.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return options


class OnnxEngine:
    """One ONNX Runtime session; its tensors are `OrtValue`s, passed on without a copy."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]

    def __call__(self, **inputs: Tensor) -> Mapping[str, Tensor]:
        """Run the session once."""
        outputs = self._session.run_with_ort_values(self._outputs, inputs)
        return dict(zip(self._outputs, outputs, strict=True))


class OnnxRuntime:
    """Loads a bundle's ONNX graphs."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        """Prepare to load.

        Args:
            bundle: Where the graphs are.
            threads: CPU threads of one run; 0 takes every core.

        Raises:
            BundleMismatch: The bundle is for another engine.
        """
        if bundle.manifest.engine != self.name:
            raise BundleMismatch(
                f"Bundle {bundle.name!r} is for engine {bundle.manifest.engine!r}, not "
                f"{self.name!r}."
            )
        self._bundle = bundle
        self._options = session_options(threads)

    @property
    def machine(self) -> str:
        """Its version, and the CPU's kind."""
        return f"onnxruntime {onnxruntime.__version__} on {platform.machine()}"

    def load(self, graph: str) -> Engine:
        """Load one graph.

        Raises:
            BundleCorrupt: Its file is not the one in the manifest.
            BundleMismatch: This ONNX Runtime cannot load it.
        """
        path, *_ = [self._bundle.file(part) for part in self._bundle.manifest.graphs[graph].files]
        try:
            session = onnxruntime.InferenceSession(
                path, self._options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise BundleMismatch(
                f"ONNX Runtime {onnxruntime.__version__} cannot load graph {graph!r} of bundle "
                f"{self._bundle.name!r}: {error}. Run `pip install --upgrade onnxruntime`, or "
                "export the bundle again."
            ) from error
        return OnnxEngine(session)

    def upload(self, array: Array, dtype: str | None = None) -> Tensor:
        """Wrap a host array."""
        if dtype == "bfloat16":
            return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, BFLOAT16)
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)

    def download(self, tensor: Tensor) -> Array:
        """Read a tensor."""
        array: Array = tensor.numpy()
        return array

    def concatenate(self, tensors: Sequence[Tensor]) -> Tensor:
        """Join tensors along their first axis."""
        return self.upload(np.concatenate([tensor.numpy() for tensor in tensors]))

    def num_bytes(self, tensor: Tensor) -> int:
        """Memory of a tensor."""
        return int(tensor.tensor_size_in_bytes())
