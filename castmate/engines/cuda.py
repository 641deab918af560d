"""Device memory and one stream, on `cuda-bindings`; nothing here knows of graphs.

Buffers come from the device's pool and return to it in stream order, so a step allocates nothing
new and waits for nothing. CUDA remembers the chosen device per thread, so every call binds it
first: the thread that draws may not be the thread that loaded.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np

from castmate.engines.base import Array
from castmate.errors import BundleMismatch, Unavailable

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
POISONED_EXIT: Final = 70
"""Exit status of a process whose CUDA context is lost: EX_SOFTWARE of sysexits.h."""
_KEEP_ALL: Final = 2**64 - 1

DRIVER = Path("/proc/driver/nvidia/version")
"""Missing in WSL, where only the driver's CUDA version is known."""


@dataclass(frozen=True, eq=False)
class DeviceTensor:
    """A buffer on the device; its memory lives as long as this object.

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
    """One GPU, and the stream on which a runtime runs everything."""

    def __init__(self, index: int = 0) -> None:
        """Open a GPU.

        Raises:
            BundleMismatch: There is no such GPU, or `cuda-bindings` is missing.
        """
        try:
            self._cuda: Any = importlib.import_module("cuda.bindings.runtime")
            driver: Any = importlib.import_module("cuda.bindings.driver")
        except ImportError:
            raise BundleMismatch(
                "This bundle holds TensorRT plans, and cuda-python is not installed. "
                "Run: pip install 'cuda-python>=13,<14'."
            ) from None
        error, count = self._cuda.cudaGetDeviceCount()
        if int(error) or not count:
            reason = self._reason(error) if int(error) else "none found"
            raise BundleMismatch(
                f"This bundle holds TensorRT plans, and no NVIDIA GPU can be used here ({reason}). "
                "Use a bundle for engine 'onnxruntime', such as toon, or a machine with a GPU."
            )
        if not 0 <= index < count:
            raise BundleMismatch(
                f"There is no GPU {index}; this machine has {count}, numbered from 0. "
                "Change CASTMATE_DEVICE."
            )
        self.index = index
        attributes = self._cuda.cudaDeviceAttr
        self.compute_capability = ".".join(
            str(self.call("cudaDeviceGetAttribute", attribute, index))
            for attribute in (
                attributes.cudaDevAttrComputeCapabilityMajor,
                attributes.cudaDevAttrComputeCapabilityMinor,
            )
        )
        self.stream = int(self.call("cudaStreamCreate"))
        # By default, each wait for the stream releases the pool's memory, to be mapped again.
        self._pool = self.call("cudaDeviceGetDefaultMemPool", index)
        threshold = self._cuda.cudaMemPoolAttr.cudaMemPoolAttrReleaseThreshold
        self.call("cudaMemPoolSetAttribute", self._pool, threshold, driver.cuuint64_t(_KEEP_ALL))
        self.trim()  # an earlier runtime of this process may have left it full

    def bind(self) -> None:
        """Choose this GPU for the calling thread, where another runtime may have chosen its own."""
        (error,) = self._cuda.cudaSetDevice(self.index)
        if int(error):
            self._fail("cudaSetDevice", error)

    @property
    def description(self) -> str:
        """The GPU and its driver."""
        name = bytes(self.call("cudaGetDeviceProperties", self.index).name).partition(b"\0")[0]
        found = DRIVER.read_text(errors="replace") if DRIVER.is_file() else ""
        version = re.search(r"\d+\.\d+(\.\d+)?", found)
        return (
            f"{name.decode(errors='replace')}, compute capability {self.compute_capability}, "
            f"driver {version[0] if version else 'unknown'}, "
            f"CUDA {self.call('cudaDriverGetVersion')}"
        )

    def free_bytes(self) -> int:
        """Device memory that no process has taken."""
        return int(self._memory()[0])

    @property
    def total_bytes(self) -> int:
        """The device's memory."""
        return int(self._memory()[1])

    def allocate(self, shape: tuple[int, ...], dtype: str) -> DeviceTensor:
        """Allocate memory that is freed with the tensor.

        Raises:
            Unavailable: There is too little.
        """
        num_bytes = max(1, int(np.prod(shape, dtype=np.int64)) * BYTES[dtype])
        pointer = int(self.call("cudaMallocAsync", num_bytes, self.stream))
        tensor = DeviceTensor(pointer, shape, dtype)
        weakref.finalize(tensor, self._free, pointer)
        return tensor

    def upload(self, array: Array, dtype: str | None = None) -> DeviceTensor:
        """Copy a host array to the device; the bits of `bfloat16` come as uint16."""
        array = np.ascontiguousarray(array)
        tensor = self.allocate(array.shape, dtype or array.dtype.name)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(tensor.pointer, array.ctypes.data, array.nbytes, kind)
        self.wait()  # the array may be gone afterwards
        return tensor

    def download(self, tensor: DeviceTensor) -> Array:
        """Copy a tensor to the host, after all work queued before; bf16 becomes fp32."""
        narrow = tensor.dtype == "bfloat16"
        array = np.empty(tensor.shape, np.uint16 if narrow else np.dtype(tensor.dtype))
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(array.ctypes.data, tensor.pointer, array.nbytes, kind)
        self.wait()
        return widen(array) if narrow else array

    def concatenate(self, tensors: list[DeviceTensor]) -> DeviceTensor:
        """Join tensors along their first axis."""
        first = tensors[0]
        length = sum(tensor.shape[0] for tensor in tensors)
        joined = self.allocate((length, *first.shape[1:]), first.dtype)
        kind, offset = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice, joined.pointer
        for tensor in tensors:
            self._copy(offset, tensor.pointer, tensor.num_bytes, kind)
            offset += tensor.num_bytes
        return joined

    def wait(self) -> None:
        """Wait until all queued work is done."""
        self.call("cudaStreamSynchronize", self.stream)

    def trim(self) -> None:
        """Release memory that the pool keeps for later, so that TensorRT can allocate it."""
        self.wait()
        self.call("cudaMemPoolTrimTo", self._pool, 0)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of CUDA's runtime on this GPU.

        Returns:
            The function's results: nothing, a value, or a list of values.

        Raises:
            Unavailable: There is too little memory.
            RuntimeError: The call failed for another reason.
        """
        self.bind()
        error, *values = getattr(self._cuda, name)(*arguments)
        if int(error):
            self._fail(name, error)
        return values if len(values) > 1 else next(iter(values), None)

    def check(self, what: str) -> None:
        """End the process if CUDA's context is lost.

        Args:
            what: The operation, for the message.
        """
        self._cuda.cudaGetLastError()  # clears errors that the context survives
        (error,) = self._cuda.cudaStreamQuery(self.stream)
        if error not in (
            self._cuda.cudaError_t.cudaSuccess,
            self._cuda.cudaError_t.cudaErrorNotReady,
        ):
            end_process(
                f"GPU {self.index} is lost to this process: {what}: {self._reason(error)}. No call "
                "can succeed any more, so the process ends; start it again (`castmate serve "
                "triton` and the container do so themselves). If it comes again, look for Xid "
                "lines in `dmesg`."
            )

    def _fail(self, name: str, error: Any) -> NoReturn:
        reason = self._reason(error)
        if error == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
            self._cuda.cudaGetLastError()
            raise Unavailable(
                f"GPU {self.index} has too little memory left ({self.free_bytes() / 1e9:.2f} GB): "
                f"{name}: {reason}. Draw smaller pictures, end what else uses the GPU, or let "
                "Castmate plan for less: CASTMATE_GPU_MEMORY."
            )
        if hasattr(self, "stream"):
            self.check(name)
        raise RuntimeError(f"{name}: {reason}")

    def _memory(self) -> list[int]:
        free_and_total: list[int] = self.call("cudaMemGetInfo")
        return free_and_total

    def _copy(self, target: int, source: int, num_bytes: int, kind: Any) -> None:
        self.call("cudaMemcpyAsync", target, source, num_bytes, kind, self.stream)

    def _free(self, pointer: int) -> None:
        """Free memory from whichever thread drops a tensor; the next call reports any error."""
        self._cuda.cudaSetDevice(self.index)
        self._cuda.cudaFreeAsync(pointer, self.stream)

    def _reason(self, error: Any) -> str:
        text: bytes = self._cuda.cudaGetErrorString(error)[1]
        return text.decode()


def end_process(reason: str) -> NoReturn:
    """Print the reason on standard error and exit at once.

    There is nothing to save in this process: predictions are in the ledger, and clients notice that
    their server is gone. An exception could be caught by code that carries on.
    """
    sys.stderr.write(f"castmate: {reason}\n")
    sys.stderr.flush()
    os._exit(POISONED_EXIT)


def widen(bits: Array) -> Array:
    """The bits of bf16 values as fp32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
