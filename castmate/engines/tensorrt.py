"""Plans on an NVIDIA GPU, of either TensorRT flavour.

Everything runs on one stream: a call queues work and returns handles, and only `download` waits.
Addresses and shapes are bound when they change; in the denoise loop that is `latents` and `step`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from castmate.engines.base import Array, Engine, Tensor
from castmate.engines.bundle import Bundle
from castmate.engines.cuda import Device, DeviceTensor
from castmate.engines.plan import BUILD_AGAIN, Flavour, PlanManifest, ShapeRange
from castmate.errors import BundleMismatch

INSTALL = {
    Flavour.TENSORRT: "pip install 'castmate[tensorrt]'",
    Flavour.TENSORRT_RTX: "pip install 'castmate[rtx]'",
}


SPARE_BYTES = 2**30
"""Left free beside a plan whose weights are streamed: latents, caches, scratch of the streaming."""


class TensorRTEngine:
    """One execution context; its tensors are `DeviceTensor`s, passed on without a copy."""

    def __init__(self, name: str, engine: Any, context: Any, device: Device, plan: PlanManifest):
        """Prepare to run.

        Args:
            name: Of the graph, for errors.
            engine: A deserialized engine.
            context: Its execution context, which nobody else uses.
            device: Where it runs.
            plan: The shapes that it takes.
        """
        self._name, self._engine, self._context, self._device = name, engine, context, device
        self._profiles = plan.profiles
        self._profile = 0
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._outputs = [n for n in names if "OUTPUT" in str(engine.get_tensor_mode(n))]
        self._dtypes = {n: _dtype(engine.get_tensor_dtype(n)) for n in self._outputs}
        # Holding the bound tensors keeps their memory from being given back and handed out again
        # under the same address.
        self._bound: dict[str, DeviceTensor] = {}

    def __call__(self, **inputs: Tensor) -> Mapping[str, Tensor]:
        """Queue one run.

        Raises:
            BundleMismatch: A shape lies outside every profile.
        """
        context = self._context
        changed = {n: t for n, t in inputs.items() if self._bound.get(n) is not t}
        if any(n not in self._bound or self._bound[n].shape != t.shape for n, t in changed.items()):
            self._choose_profile({n: t.shape for n, t in inputs.items()})
            for name, tensor in inputs.items():
                context.set_input_shape(name, tensor.shape)
        for name, tensor in changed.items():
            context.set_tensor_address(name, tensor.pointer)
        self._bound = dict(inputs)
        outputs = {}
        for name in self._outputs:
            shape = tuple(context.get_tensor_shape(name))
            outputs[name] = self._device.allocate(shape, self._dtypes[name])
            context.set_tensor_address(name, outputs[name].pointer)
        if not context.execute_async_v3(self._device.stream):
            raise RuntimeError(f"TensorRT could not run graph {self._name!r}; see its log above")
        return outputs

    def _choose_profile(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        chosen = choose_profile(self._name, self._profiles, shapes)
        if chosen != self._profile:
            self._context.set_optimization_profile_async(chosen, self._device.stream)
            self._profile = chosen


class TensorRTRuntime:
    """Loads a bundle's plans."""

    def __init__(self, bundle: Bundle, *, device: int = 0) -> None:
        """Prepare to load.

        Args:
            bundle: Where the plans are.
            device: Number of the GPU.

        Raises:
            BundleMismatch: The bundle is for another engine or GPU, or something is not installed.
        """
        engines = [flavour.value for flavour in Flavour]
        if bundle.manifest.engine not in engines:
            raise BundleMismatch(
                f"Bundle {bundle.name!r} is for engine {bundle.manifest.engine!r}, not "
                f"{' or '.join(engines)}. {BUILD_AGAIN}"
            )
        self.bundle, self._flavour = bundle, Flavour(bundle.manifest.engine)
        try:
            self._trt: Any = importlib.import_module(self._flavour.value)
        except ImportError as error:
            raise BundleMismatch(
                f"Bundle {bundle.name!r} holds plans of {self._flavour}, which is not installed "
                f"({error}). Run: {INSTALL[self._flavour]}."
            ) from None
        self._device = Device(device)
        self._runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.WARNING))

    @property
    def name(self) -> str:
        """The flavour, as the bundle names it."""
        return self._flavour.value

    @property
    def machine(self) -> str:
        """Versions of TensorRT and of the driver, and the GPU."""
        return f"{self._flavour} {self._trt.__version__} on {self._device.description}"

    def load(self, graph: str) -> Engine:
        """Load one plan.

        Raises:
            BundleCorrupt: It is half-written or not the one in the manifest.
            BundleMismatch: It was built for another TensorRT or GPU, or does not load.
        """
        path = self.bundle.file(self.bundle.manifest.graphs[graph].files[0])
        manifest = check_plan(
            path,
            flavour=self._flavour,
            tensorrt_version=str(self._trt.__version__),
            compute_capability=self._device.compute_capability,
        )
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise BundleMismatch(
                f"{self._flavour} {self._trt.__version__} cannot load {path}. {BUILD_AGAIN}"
            )
        if streamable := engine.streamable_weights_size:  # built with --weight-streaming
            # Not TensorRT's automatic budget: its Python binding cuts it off at 31 bits.
            engine.weight_streaming_budget_v2 = resident_bytes(
                streamable, self._device.free_bytes(), engine.device_memory_size_v2
            )
        return TensorRTEngine(
            graph, engine, engine.create_execution_context(), self._device, manifest
        )

    def upload(self, array: Array, dtype: str | None = None) -> Tensor:
        """Copy a host array to the device."""
        return self._device.upload(array, dtype)

    def download(self, tensor: Tensor) -> Array:
        """Wait for a tensor and copy it to the host."""
        return self._device.download(tensor)

    def num_bytes(self, tensor: Tensor) -> int:
        """Device memory of a tensor."""
        size: int = tensor.num_bytes
        return size


def resident_bytes(weights: int, free: int, activations: int) -> int:
    """How much of a plan's weights stays on the device; the rest is streamed from the host.

    Args:
        weights: All of them, in bytes.
        free: Of the device's memory.
        activations: What one execution context of the plan takes.
    """
    return min(weights, max(0, free - activations - SPARE_BYTES))


def check_plan(
    path: Path, *, flavour: Flavour, tensorrt_version: str, compute_capability: str
) -> PlanManifest:
    """The manifest of a plan that fits this machine.

    Raises:
        BundleCorrupt: The plan is not whole.
        BundleMismatch: It was built for something else; every difference is named.
    """
    manifest = PlanManifest.beside(path)
    reasons = manifest.differences(
        flavour=flavour,
        tensorrt_version=tensorrt_version,
        compute_capability=compute_capability,
    )
    if reasons:
        raise BundleMismatch(f"{path} does not fit: {'; '.join(reasons)}. {BUILD_AGAIN}")
    return manifest


def choose_profile(
    graph: str,
    profiles: Sequence[Mapping[str, ShapeRange]],
    shapes: Mapping[str, tuple[int, ...]],
) -> int:
    """The first profile that allows the shapes.

    Raises:
        BundleMismatch: None does; names the input, its shape and what is allowed.
    """
    for number, profile in enumerate(profiles):
        if all(profile[name].allows(shape) for name, shape in shapes.items()):
            return number
    name, shape = next(
        (name, shape)
        for name, shape in shapes.items()
        if not any(profile[name].allows(shape) for profile in profiles) or len(profiles) > 1
    )
    allowed = " or ".join(
        f"{list(profile[name].min)} to {list(profile[name].max)}" for profile in profiles
    )
    raise BundleMismatch(
        f"Graph {graph!r} was built for `{name}` of {allowed}, not {list(shape)}. "
        "Build it for this size: python -m export.build."
    )


def _dtype(found: Any) -> str:
    """TensorRT's name of a type to NumPy's."""
    names = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
    name = str(found).rpartition(".")[2]
    return names.get(name, name.lower())
