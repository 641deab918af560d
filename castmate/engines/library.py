"""An installed TensorRT: its module, its messages, and how it creates contexts."""

from __future__ import annotations

import importlib
import logging
import re
from collections import deque
from pathlib import Path
from typing import Any

from castmate.engines.plan import Flavour
from castmate.errors import BundleMismatch

INSTALL = {
    Flavour.TENSORRT: "pip install 'castmate[tensorrt]'",
    Flavour.TENSORRT_RTX: "pip install 'castmate[rtx]'",
}
_OUT_OF_MEMORY = re.compile(r"out of memory|could not be allocated", re.IGNORECASE)
_log = logging.getLogger(__name__)


class Library:
    """One flavour of TensorRT, with one runtime."""

    def __init__(self, flavour: Flavour, bundle: str, kernels: Path | None) -> None:
        """Import it.

        Args:
            flavour: Which TensorRT.
            bundle: The bundle that needs it, for errors.
            kernels: A folder for compiled kernels.

        Raises:
            BundleMismatch: It is not installed.
        """
        self.flavour, self.kernels = flavour, kernels
        try:
            self.trt: Any = importlib.import_module(flavour.value)
        except ImportError as error:
            raise BundleMismatch(
                f"Bundle {bundle!r} holds plans of {flavour}, which is not installed ({error}). "
                f"Run: {INSTALL[flavour]}."
            ) from None
        self.version = str(self.trt.__version__)
        self.errors: deque[str] = deque(maxlen=3)
        self._logger = _logger(self.trt, self.errors)
        self._runtime: Any = None

    @property
    def can_defer(self) -> bool:
        """Whether weights can leave while engine and context stay: TensorRT-RTX >= 1.7."""
        return hasattr(self.trt.Runtime, "defer_weights_loading") and hasattr(
            self.trt.ICudaEngine, "unload_weights"
        )

    def deserialize(self, data: Any, *, defer: bool) -> Any:
        """Deserialize an engine; None if TensorRT rejects it.

        Args:
            data: The plan, any buffer.
            defer: Whether to leave its weights where they are.
        """
        if self._runtime is None:  # created in a thread that has chosen a GPU
            self._runtime = self.trt.Runtime(self._logger)
        self.errors.clear()
        if self.can_defer:
            self._runtime.defer_weights_loading = defer
        return self._runtime.deserialize_cuda_engine(data)

    def is_out_of_memory(self) -> bool:
        """Whether the last errors say that memory ran out."""
        return any(_OUT_OF_MEMORY.search(text) for text in self.errors)


def _logger(trt: Any, errors: deque[str]) -> Any:
    class Recorder(trt.ILogger):  # type: ignore[misc]
        """Forwards warnings, and keeps the last errors for messages."""

        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT, from any thread."""
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                errors.append(message.strip())
                _log.error("%s: %s", trt.__name__, message)
            elif severity == trt.ILogger.Severity.WARNING:
                _log.warning("%s: %s", trt.__name__, message)

    return Recorder()
