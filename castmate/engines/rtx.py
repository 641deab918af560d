"""Kernels that TensorRT-RTX, unlike TensorRT, compiles on the user's machine."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from castmate.files import make_private_folder, write_atomically


class Kernels:
    """The compiled kernels of one engine, kept on disk: compiling takes minutes at full size."""

    def __init__(self, trt: Any, engine: Any, store: Path | None) -> None:
        """Read the kernels that an earlier process compiled.

        Args:
            trt: The module `tensorrt_rtx`.
            engine: A deserialized engine.
            store: A file, created when a kernel is compiled; without it nothing is kept.
        """
        self._store = store
        self._config = engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        # With lazy compilation, the first steps would run on fallback kernels and later ones on
        # others, so the same seed would not give the same picture.
        self._config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        self._cache = self._config.create_runtime_cache()
        if store is not None:
            with contextlib.suppress(OSError):
                # False if the driver or GPU has changed: then it is compiled and written again.
                self._cache.deserialize(store.read_bytes())
        self._config.set_runtime_cache(self._cache)

    def create_context(self, engine: Any) -> Any:
        """An execution context that uses them; None if TensorRT cannot create one."""
        return engine.create_execution_context(self._config)

    def save(self) -> None:
        """Save the compiled kernels; if the file cannot be written, that only costs time."""
        if self._store is None:
            return
        data = bytes(self._cache.serialize())
        with contextlib.suppress(OSError):
            if not self._store.is_file() or self._store.read_bytes() != data:
                make_private_folder(self._store.parent)
                write_atomically(self._store, data)
