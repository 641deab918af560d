"""A plan, mapped from disk, and the part of it that is on the device."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from castmate.engines.cuda import Device
from castmate.engines.library import Library
from castmate.engines.plan import BUILD_AGAIN, Flavour, PlanManifest
from castmate.engines.rtx import Kernels
from castmate.errors import BundleMismatch, CastmateError, Unavailable


class PlanFile:
    """An engine that can leave the device and come back.

    TensorRT-RTX can unload the weights alone; its compiled kernels and the context stay. With
    TensorRT the whole engine is unloaded, and deserialized again from the mapped file.
    """

    def __init__(
        self,
        path: Path,
        manifest: PlanManifest,
        library: Library,
        device: Device,
        *,
        weights: int,
        stays: bool,
    ) -> None:
        """Load as much of the engine as should be on the device before it runs.

        Args:
            path: The plan.
            manifest: Its manifest, already checked against it.
            library: Runs the plan.
            device: The GPU.
            weights: Bytes of its weights that may be on the device; the rest is streamed.
            stays: Whether it never leaves.

        Raises:
            BundleMismatch: TensorRT cannot load it.
            Unavailable: The GPU has too little memory left.
        """
        self.path, self.manifest = path, manifest
        self._library, self._device, self._weights = library, device, weights
        self._streams = weights < manifest.weight_bytes
        self._defers = not stays and not self._streams and library.can_defer
        self._engine: Any = None
        self._kernels: Kernels | None = None
        self._data: mmap.mmap | None = None
        self.context: Any = None
        self.outputs: dict[str, str] = {}
        self.activation_bytes = max(manifest.activation_bytes)
        if stays or self._defers:
            self._open()

    @property
    def is_here(self) -> bool:
        """Whether its weights are on the device."""
        if self._engine is None:
            return False
        return bool(self._engine.weights_loaded) if self._defers else True

    def bring(self) -> None:
        """Load whatever is not on the device.

        Raises:
            BundleMismatch: TensorRT cannot load it.
            Unavailable: The GPU has too little memory left.
        """
        if self._engine is None:
            self._open()
        if self._defers:
            self._device.bind()
            if not self._engine.load_weights(self._mapped()):
                raise self.problem(f"load the weights of {self.path}")

    def leave(self) -> None:
        """Free the weights; no work may be queued."""
        if not self._defers:
            self.context = self._kernels = self._engine = None
        elif not self._engine.unload_weights():
            raise self.problem(f"unload the weights of {self.path}")

    def save_kernels(self) -> None:
        """Save the kernels compiled for these shapes."""
        if self._kernels is not None:
            self._kernels.save()

    def problem(self, what: str) -> CastmateError:
        """Why TensorRT could not do something; ends the process if CUDA's context is lost."""
        self._device.check(what)
        said = "; ".join(self._library.errors) or "it gave no reason"
        if self._library.is_out_of_memory():
            return Unavailable(
                f"GPU {self._device.index} has too little memory left to {what} "
                f"({self._device.free_bytes() / 1e9:.2f} GB): {said}. End what else uses the GPU, "
                "draw smaller pictures, or let Castmate plan for less: CASTMATE_GPU_MEMORY."
            )
        return BundleMismatch(
            f"{self.manifest.flavour} {self._library.version} cannot {what}: {said}. {BUILD_AGAIN}"
        )

    def _open(self) -> None:
        self._device.bind()
        engine = self._library.deserialize(self._mapped(), defer=self._defers)
        if engine is None:
            raise self.problem(f"load {self.path}")
        if self._streams:
            self._stream(engine)
        self.activation_bytes = int(engine.device_memory_size_v2)
        self.context = self._create_context(engine)
        if self.context is None:
            raise self.problem(f"make a context of {self.path}")
        self._engine = engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self.outputs = {
            name: _dtype(engine.get_tensor_dtype(name))
            for name in names
            if "OUTPUT" in str(engine.get_tensor_mode(name))
        }
        if not self._defers:  # the file has been read; to load the plan again, map it again
            self._data = None

    def _create_context(self, engine: Any) -> Any:
        trt = self._library.trt
        if self._library.flavour is Flavour.TENSORRT:
            return engine.create_execution_context(
                trt.ExecutionContextAllocationStrategy.USER_MANAGED
            )
        folder, manifest = self._library.kernels, self.manifest
        name = f"{manifest.graph}-{manifest.plan_sha256[:16]}-{self._device.index}.kernels"
        self._kernels = Kernels(trt, engine, folder / name if folder else None)
        return self._kernels.create_context(engine)

    def _stream(self, engine: Any) -> None:
        """Keep on the device the weights for which the residency plan has room.

        The streaming's scratch memory comes on top and depends on the budget. Python's setter
        drops the library's success flag, so the budget is read back.
        """
        fixed = self.manifest.weight_bytes - int(engine.streamable_weights_size)
        allowed = budget = max(0, self._weights - fixed)
        for _ in range(4):
            engine.weight_streaming_budget_v2 = budget
            if int(engine.weight_streaming_budget_v2) != budget:
                raise self.problem(f"stream the weights of {self.path} ({budget} bytes stay)")
            over = budget + int(engine.weight_streaming_scratch_memory_size) - allowed
            if over <= 0 or budget == 0:
                return
            budget = max(0, budget - over)
        raise self.problem(f"stream the weights of {self.path} within {allowed} bytes")

    def _mapped(self) -> mmap.mmap:
        """The plan's bytes, read on demand and shared by all processes."""
        if self._data is None:
            with self.path.open("rb") as stream:
                self._data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return self._data


def _dtype(found: Any) -> str:
    """NumPy's name of a TensorRT type."""
    names = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
    name = str(found).rpartition(".")[2]
    return names.get(name, name.lower())
