"""Device memory and one stream, on `cuda-bindings`; nothing here knows of graphs.

Buffers come from the device's pool and are given back in stream order, so a step allocates nothing
new and waits for nothing.
"""

from __future__ import annotations

import importlib
import re
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from castmate.engines.base import Array
from castmate.errors import BundleMismatch

BYTES = {
    "bfloat16": 2,
    "float16": 2,
    "float32": 4,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "int8": 1,
    "bool": 1,
}

DRIVER = Path("/proc/driver/nvidia/version")
"""Not on Windows' Linux, where only the driver's version of CUDA is known."""


@dataclass(frozen=True, eq=False)
class DeviceTensor:
    """A buffer on the device; the memory lives as long as this object.

    Attributes:
        pointer: Its address.
        shape: Of the tensor in it.
        dtype: NumPy's name, or `bfloat16`.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Size of the buffer."""
        return int(np.prod(self.shape, dtype=np.int64)) * BYTES[self.dtype]


class Device:
    """One GPU and the stream that everything of a runtime runs on."""

    def __init__(self, index: int = 0) -> None:
        """Open a GPU.

        Raises:
            BundleMismatch: There is none, or no binding for it.
        """
        try:
            self._cuda: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError:
            raise BundleMismatch(
                "This bundle holds TensorRT plans, and cuda-python is not installed. "
                "Run: pip install 'cuda-python>=13,<14'."
            ) from None
        error, count = self._cuda.cudaGetDeviceCount()
        if int(error) or not count:
            reason = (
                self._cuda.cudaGetErrorString(error)[1].decode() if int(error) else "none found"
            )
            raise BundleMismatch(
                f"This bundle holds TensorRT plans, and no NVIDIA GPU can be used here ({reason}). "
                "Use a bundle for engine 'onnxruntime', such as toon, or a machine with a GPU."
            )
        if not 0 <= index < count:
            raise BundleMismatch(f"There is no GPU {index}; this machine has {count}.")
        self._call("cudaSetDevice", index)
        attributes = self._cuda.cudaDeviceAttr
        self.compute_capability = ".".join(
            str(self._call("cudaDeviceGetAttribute", attribute, index))
            for attribute in (
                attributes.cudaDevAttrComputeCapabilityMajor,
                attributes.cudaDevAttrComputeCapabilityMinor,
            )
        )
        self.stream = int(self._call("cudaStreamCreate"))
        self._index = index

    @property
    def description(self) -> str:
        """The GPU and its driver."""
        name = bytes(self._call("cudaGetDeviceProperties", self._index).name).rstrip(b"\0")
        found = DRIVER.read_text(errors="replace") if DRIVER.is_file() else ""
        version = re.search(r"\d+\.\d+(\.\d+)?", found)
        return (
            f"{name.decode(errors='replace')}, compute capability {self.compute_capability}, "
            f"driver {version[0] if version else 'unknown'}, "
            f"CUDA {self._call('cudaDriverGetVersion')}"
        )

    def free_bytes(self) -> int:
        """Device memory that nobody has taken yet."""
        return int(self._call("cudaMemGetInfo"))

    def allocate(self, shape: tuple[int, ...], dtype: str) -> DeviceTensor:
        """Take memory; it is given back when the tensor is forgotten."""
        num_bytes = max(1, int(np.prod(shape, dtype=np.int64)) * BYTES[dtype])
        pointer = int(self._call("cudaMallocAsync", num_bytes, self.stream))
        tensor = DeviceTensor(pointer, shape, dtype)
        weakref.finalize(tensor, self._cuda.cudaFreeAsync, pointer, self.stream)
        return tensor

    def upload(self, array: Array, dtype: str | None = None) -> DeviceTensor:
        """Copy a host array to the device; the bits of `bfloat16` come as uint16."""
        array = np.ascontiguousarray(array)
        tensor = self.allocate(array.shape, dtype or array.dtype.name)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(tensor.pointer, array.ctypes.data, array.nbytes, kind)
        return tensor

    def download(self, tensor: DeviceTensor) -> Array:
        """Copy a tensor to the host, after all that was queued before; bf16 becomes fp32."""
        narrow = tensor.dtype == "bfloat16"
        array = np.empty(tensor.shape, np.uint16 if narrow else np.dtype(tensor.dtype))
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(array.ctypes.data, tensor.pointer, array.nbytes, kind)
        return widen(array) if narrow else array

    def _copy(self, target: int, source: int, num_bytes: int, kind: Any) -> None:
        self._call("cudaMemcpyAsync", target, source, num_bytes, kind, self.stream)
        self._call("cudaStreamSynchronize", self.stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._cuda, name)(*arguments)
        if int(error):
            reason = self._cuda.cudaGetErrorString(error)[1].decode()
            raise RuntimeError(f"{name}: {reason}")
        return values[0] if values else None


def widen(bits: Array) -> Array:
    """The bits of bf16 values as fp32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
