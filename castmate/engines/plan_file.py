"""A plan, mapped from disk, and what of it is on the device."""

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
    """An engine that is on the device, or only its file is.

    TensorRT-RTX lets the weights alone leave; its compiled kernels and the context stay. With
    TensorRT the whole engine leaves, and is deserialized again from the mapped file.
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
        """Load the engine, as far as it is to be there before it runs.

        Args:
            path: Of the plan.
            manifest: Of the plan, which is the one of this file.
            library: What runs it.
            device: Where.
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
        """Load what is not there.

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
        """Free the weights; nothing may be queued."""
        if not self._defers:
            self.context = self._kernels = self._engine = None
        elif not self._engine.unload_weights():
            raise self.problem(f"unload the weights of {self.path}")

    def save_kernels(self) -> None:
        """Keep what has been compiled for these shapes."""
        if self._kernels is not None:
            self._kernels.save()

    def problem(self, what: str) -> CastmateError:
        """Why TensorRT could not do something; ends the process where nothing can any more."""
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
        if not self._defers:  # the file is read; a plan that comes again is mapped again
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
        """Leave on the device what the plan of residency has room for.

        The scratch memory of the streaming comes on top and depends on the budget. Python's setter
        drops the success that the library returns, so the budget is read again.
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
        """The plan's bytes; they are read as they are needed, and shared by all processes."""
        if self._data is None:
            with self.path.open("rb") as stream:
                self._data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return self._data


def _dtype(found: Any) -> str:
    """TensorRT's name of a type to NumPy's."""
    names = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
    name = str(found).rpartition(".")[2]
    return names.get(name, name.lower())
