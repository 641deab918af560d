"""CUDA's runtime as `cuda.bindings.runtime` offers it; enumerations are the real ones."""

from __future__ import annotations

import ctypes
import importlib
from types import ModuleType
from typing import Any

import numpy as np

from tests.gpu_double.card import Card, Machine, OutOfMemory

# The real module, before a double takes its name.
real: Any = importlib.import_module("cuda.bindings.runtime")
Error = real.cudaError_t
ENUMERATIONS = ("cudaError_t", "cudaDeviceAttr", "cudaMemcpyKind", "cudaMemPoolAttr")


class Runtime(ModuleType):
    """Stands in for the module."""

    def __init__(self, machine: Machine) -> None:
        super().__init__("cuda.bindings.runtime")
        self._machine = machine
        for name in ENUMERATIONS:
            setattr(self, name, getattr(real, name))

    def cudaGetDeviceCount(self) -> Any:
        return Error.cudaSuccess, len(self._machine.cards)

    def cudaSetDevice(self, device: int) -> Any:
        self._machine.choose(device)
        return self._answer(self._machine.cards[device])

    def cudaDeviceGetAttribute(self, attribute: Any, device: int) -> Any:
        major, minor = self._machine.cards[device].compute_capability
        names = {
            real.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor: major,
            real.cudaDeviceAttr.cudaDevAttrComputeCapabilityMinor: minor,
        }
        return self._answer(self._machine.cards[device], names[attribute])

    def cudaGetDeviceProperties(self, device: int) -> Any:
        found = real.cudaDeviceProp()
        found.name = b"a double".ljust(256, b"\0")
        return self._answer(self._machine.cards[device], found)

    def cudaDriverGetVersion(self) -> Any:
        return Error.cudaSuccess, 13000

    def cudaStreamCreate(self) -> Any:
        card = self._machine.here("cudaStreamCreate")
        stream = 1000 * (card.index + 1) + len(card.streams)
        card.streams.add(stream)
        return self._answer(card, stream)

    def cudaStreamSynchronize(self, stream: int) -> Any:
        card = self._machine.on_stream(stream, "cudaStreamSynchronize")
        card.wait()
        return self._answer(card)

    def cudaStreamQuery(self, stream: int) -> Any:
        return self._answer(self._machine.on_stream(stream, "cudaStreamQuery"))

    def cudaGetLastError(self) -> Any:
        return self._answer(self._machine.here("cudaGetLastError"))

    def cudaMemGetInfo(self) -> Any:
        card = self._machine.here("cudaMemGetInfo")
        return self._answer(card, card.size - card.taken, card.size)

    def cudaMallocAsync(self, size: int, stream: int) -> Any:
        card = self._machine.on_stream(stream, "cudaMallocAsync")
        try:
            block = card.allocate(size, f"a buffer of {size} bytes", pooled=True)
        except OutOfMemory:
            return Error.cudaErrorMemoryAllocation, None
        return self._answer(card, block.address)

    def cudaFreeAsync(self, pointer: int, stream: int) -> Any:
        card = self._machine.on_stream(stream, "cudaFreeAsync")
        card.free(pointer)
        return self._answer(card)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Any, stream: int) -> Any:
        card = self._machine.on_stream(stream, "cudaMemcpyAsync")
        kinds = real.cudaMemcpyKind
        if kind == kinds.cudaMemcpyHostToDevice:
            card.write(target, np.frombuffer(ctypes.string_at(source, size), np.uint8))
        elif kind == kinds.cudaMemcpyDeviceToHost:
            ctypes.memmove(target, card.read(source, size).tobytes(), size)
        else:
            card.write(target, card.read(source, size).copy())
        return self._answer(card)

    def cudaDeviceGetDefaultMemPool(self, device: int) -> Any:
        return self._answer(self._machine.cards[device], ("pool", device))

    def cudaMemPoolSetAttribute(self, pool: Any, attribute: Any, value: Any) -> Any:
        assert attribute == real.cudaMemPoolAttr.cudaMemPoolAttrReleaseThreshold
        value.getPtr()  # as the real one: a plain number is refused
        card = self._machine.cards[pool[1]]
        card.threshold = int(value)
        return self._answer(card)

    def cudaMemPoolTrimTo(self, pool: Any, keep: int) -> Any:
        card = self._machine.cards[pool[1]]
        card.trim(keep)
        return self._answer(card)

    def cudaGetErrorString(self, error: Any) -> Any:
        return real.cudaGetErrorString(error)

    @staticmethod
    def _answer(card: Card, *values: Any) -> Any:
        return Error(card.poison), *values
