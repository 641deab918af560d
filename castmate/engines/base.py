"""The runtime interface that the pipeline needs; the pipeline never looks inside a tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

Tensor = Any
"""A handle on a device tensor: created by one runtime, meaningful only to that runtime."""

Array = NDArray[Any]


class Engine(Protocol):
    """One loaded graph: tensors in by name, tensors out by name, all on the device."""

    def __call__(self, **inputs: Tensor) -> Mapping[str, Tensor]:
        """Run the graph once."""
        ...


class Runtime(Protocol):
    """Loads the graphs of one bundle and moves arrays between host and device."""

    @property
    def name(self) -> str:
        """The engine's name in bundles: `onnxruntime`, `tensorrt`."""
        ...

    @property
    def machine(self) -> str:
        """Hardware and versions: an engine may be right on one machine and wrong on another."""
        ...

    def load(self, graph: str) -> Engine:
        """Load a graph of the bundle.

        Raises:
            BundleError: The graph does not load here, with the reason.
        """
        ...

    def upload(self, array: Array, dtype: str | None = None) -> Tensor:
        """Copy a host array to the device.

        Args:
            array: What to copy.
            dtype: That of the array, or `bfloat16` for an array of uint16 that holds the bits.
        """
        ...

    def download(self, tensor: Tensor) -> Array:
        """Copy a device tensor to the host."""
        ...

    def concatenate(self, tensors: Sequence[Tensor]) -> Tensor:
        """Join tensors along their first axis."""
        ...

    def num_bytes(self, tensor: Tensor) -> int:
        """Device memory of a tensor."""
        ...


class WrappedRuntime:
    """Delegates to another runtime whatever a subclass does not override."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @property
    def name(self) -> str:
        """See `Runtime`."""
        return self._runtime.name

    @property
    def machine(self) -> str:
        """See `Runtime`."""
        return self._runtime.machine

    def load(self, graph: str) -> Engine:
        """See `Runtime`."""
        return self._runtime.load(graph)

    def upload(self, array: Array, dtype: str | None = None) -> Tensor:
        """See `Runtime`."""
        return self._runtime.upload(array, dtype)

    def download(self, tensor: Tensor) -> Array:
        """See `Runtime`."""
        return self._runtime.download(tensor)

    def concatenate(self, tensors: Sequence[Tensor]) -> Tensor:
        """See `Runtime`."""
        return self._runtime.concatenate(tensors)

    def num_bytes(self, tensor: Tensor) -> int:
        """See `Runtime`."""
        return self._runtime.num_bytes(tensor)
