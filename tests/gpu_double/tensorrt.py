"""TensorRT as `tensorrt` and `tensorrt_rtx` offer it, over ONNX Runtime; a plan is a JSON text."""

from __future__ import annotations

import functools
import json
import weakref
from enum import Enum, IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime

from castmate.engines.bundle import Bundle
from castmate.engines.family import family_of
from tests.gpu_double.card import Card, Machine, OutOfMemory

OUT_OF_MEMORY = (
    "[defaultAllocator.cpp::allocate::57] Error Code 1: Cuda Runtime (out of memory)",
    "Requested amount of GPU memory ({} bytes) could not be allocated.",
)
ALIGNMENT = 256


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: Any, message: str) -> None:
        raise NotImplementedError


class ExecutionContextAllocationStrategy(Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class DynamicShapesKernelSpecializationStrategy(Enum):
    LAZY, EAGER, NONE = range(3)


class TensorIOMode(Enum):
    INPUT, OUTPUT = 1, 2


@functools.cache
def graph_of(folder: str, name: str) -> tuple[onnxruntime.InferenceSession, Bundle]:
    """The session that computes what a plan of a graph would."""
    bundle = Bundle.open(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = Path(folder) / bundle.manifest.graphs[name].files[0].file
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]), bundle


class RuntimeCache:
    def __init__(self) -> None:
        self.kernels: set[str] = set()
        self.accepted: bool | None = None

    def deserialize(self, blob: bytes) -> bool:
        values = json.loads(blob)
        self.accepted = values["driver"] == "580"
        if self.accepted:
            self.kernels |= set(values["kernels"])
        return self.accepted

    def serialize(self) -> bytes:
        return json.dumps({"driver": "580", "kernels": sorted(self.kernels)}).encode()


class RuntimeConfig:
    def __init__(self) -> None:
        self.cache = RuntimeCache()
        self.strategy = ExecutionContextAllocationStrategy.STATIC
        self.dynamic_shapes_kernel_specialization_strategy = (
            DynamicShapesKernelSpecializationStrategy.LAZY
        )

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class Engine:
    """A deserialized engine; its weights are memory of the card."""

    def __init__(self, runtime: Runtime, plan: dict[str, Any], card: Card, *, loads: bool) -> None:
        self.plan, self.card, self._runtime = plan, card, runtime
        self.session, self.bundle = graph_of(plan["folder"], plan["graph"])
        self._deferred = not loads
        self._weights: Any = None
        self._budget = self.streamable_weights_size
        if loads:
            # What may be streamed lies on the host until a context is made.
            self._take(plan["weights"] - self.streamable_weights_size)
            weakref.finalize(self, _drop, card, self._held, plan["graph"])

    # ICudaEngine -----------------------------------------------------------------------------
    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        inputs = [value.name for value in self.session.get_inputs()]
        return TensorIOMode.INPUT if name in inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        spec = self.bundle.manifest.graphs[self.plan["graph"]]
        dtype = {**spec.inputs, **spec.outputs}[name].dtype
        names = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16"}
        return f"DataType.{names.get(dtype, dtype.upper())}"

    @property
    def device_memory_size_v2(self) -> int:
        return int(max(self.plan["activations"])) + self.weight_streaming_scratch_memory_size

    @property
    def streamable_weights_size(self) -> int:
        return int(self.plan.get("streamable", 0))

    @property
    def weight_streaming_scratch_memory_size(self) -> int:
        streams = self._budget < self.streamable_weights_size
        return int(self.plan.get("scratch", 0)) if streams else 0

    @property
    def weight_streaming_budget_v2(self) -> int:
        return self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, budget: int) -> None:
        if self.plan.get("refuses_budget"):
            return  # the library answers False, which Python's binding drops
        self._budget = budget

    def create_execution_context(self, config: Any) -> Context | None:
        if isinstance(config, RuntimeConfig):
            strategy = config.strategy
        else:
            strategy, config = config, None
        if strategy is not ExecutionContextAllocationStrategy.USER_MANAGED:
            self.card.fault("a context keeps activations of its own")
        if self.plan.get("no_context"):
            self._runtime.say_out_of_memory(1)
            return None
        try:
            if self.streamable_weights_size:
                self._take(min(self._budget, self.streamable_weights_size))
        except OutOfMemory:
            self._runtime.say_out_of_memory(self._budget)
            return None
        return Context(self, config)

    @property
    def has_weights(self) -> bool:
        return bool(self._held)

    # -----------------------------------------------------------------------------------------
    @property
    def _names(self) -> list[str]:
        return [value.name for value in (*self.session.get_inputs(), *self.session.get_outputs())]

    @property
    def _held(self) -> list[int]:
        if self._weights is None:
            self._weights = []
        held: list[int] = self._weights
        return held

    def _take(self, size: int) -> None:
        what = f"weights of {self.plan['graph']}"
        self._held.append(self.card.allocate(size, what, pooled=False).address)

    def _free(self) -> None:
        _drop(self.card, self._held, self.plan["graph"])


class RtxEngine(Engine):
    """With what TensorRT-RTX adds."""

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    @property
    def weights_loaded(self) -> bool:
        return self.has_weights

    def load_weights(self, blob: Any) -> bool:
        self._runtime.machine.calls.append(f"load {self.plan['graph']}")
        if not self._deferred or self.has_weights or json.loads(bytes(blob)) != self.plan:
            return False
        try:
            self._take(self.plan["weights"])
        except OutOfMemory:
            self._runtime.say_out_of_memory(self.plan["weights"])
            return False
        weakref.finalize(self, _drop, self.card, self._held, self.plan["graph"])
        return True

    def unload_weights(self) -> bool:
        self._runtime.machine.calls.append(f"unload {self.plan['graph']}")
        if not self._deferred or not self.has_weights:
            return False
        self._free()
        return True


def _drop(card: Card, held: list[int], graph: str) -> None:
    if held and graph in card.running:
        card.faults.append(f"weights of {graph!r} were freed while it may still run")
    for address in held:
        card.free(address)
    held.clear()


class Context:
    """An execution context; runs at once, but counts as running until the stream is waited for."""

    def __init__(self, engine: Engine, config: RuntimeConfig | None) -> None:
        self.engine, self._config = engine, config
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._memory: tuple[int, int] | None = None
        self.profile = 0

    def set_device_memory(self, memory: int, size: int) -> None:
        self._memory = (memory, size)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        bundle, graph = self.engine.bundle, self.engine.plan["graph"]
        family = family_of(bundle.manifest.family)
        table, ranges = family.table, family.ranges(bundle.manifest)
        dims = {name: found.min for name, found in ranges.items() if found.min == found.max}
        dims |= table.sizes({n: g.tensors for n, g in bundle.manifest.graphs.items()})
        for name_in, tensor in table.graphs[graph].inputs.items():
            for axis, size in zip(tensor.axes, self._shapes[name_in], strict=True):
                if axis.isalpha():
                    dims.setdefault(axis, size)
        return table.graphs[graph].outputs[name].sizes(table.dims(dims))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream: int) -> bool:
        engine, graph = self.engine, self.engine.plan["graph"]
        machine = engine._runtime.machine
        card = machine.on_stream(stream, f"{graph} ran")
        machine.calls.append(f"run {graph}")
        if card is not engine.card:
            card.fault(f"{graph} ran on GPU {card.index} and was loaded on {engine.card.index}")
        if engine.plan.get("poisons"):
            card.poison = engine.plan["poisons"]
        if card.poison:
            return False
        if not engine.has_weights:
            card.fault(f"{graph} ran without its weights")
        memory, size = self._memory or (0, 0)
        if size < engine.device_memory_size_v2:
            card.fault(f"{graph} ran in {size} bytes and needs {engine.device_memory_size_v2}")
        if memory % ALIGNMENT:
            card.fault(f"{graph} ran in memory that is not aligned")
        card.at(memory, size, f"used by {graph}")
        outputs = engine.session.run(None, {name: self._input(name) for name in self._shapes})
        for value, array in zip(engine.session.get_outputs(), outputs, strict=True):
            assert self.get_tensor_shape(value.name) == array.shape, value.name
            card.write(self._addresses[value.name], np.frombuffer(array.tobytes(), np.uint8))
        if self._config is not None:
            self._config.cache.kernels.add(str(sorted(self._shapes.items())))
        card.running.append(graph)
        return True

    def _input(self, name: str) -> np.ndarray:
        spec = self.engine.bundle.manifest.graphs[self.engine.plan["graph"]].inputs[name]
        dtype, shape = np.dtype(spec.dtype), self._shapes[name]
        size = int(np.prod(shape)) * dtype.itemsize
        data = self.engine.card.read(self._addresses[name], size)
        return np.frombuffer(data.tobytes(), dtype).reshape(shape)


class Runtime:
    """Deserializes; out of memory is told to the logger and answered with None."""

    machine: Machine
    engine_type: type[Engine] = Engine

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self.machine.here("a runtime was made")

    def deserialize_cuda_engine(self, data: Any) -> Engine | None:
        card = self.machine.here("an engine was loaded")
        plan = json.loads(bytes(data))
        deferred = getattr(self, "defer_weights_loading", False)
        self.machine.calls.append(f"{'defer' if deferred else 'load'} {plan['graph']}")
        if plan.get("refused"):
            self._logger.log(ILogger.Severity.ERROR, "IRuntime::deserializeCudaEngine: magic tag")
            return None
        if card.poison:
            return None
        try:
            return self.engine_type(self, plan, card, loads=not deferred)
        except OutOfMemory:
            self.say_out_of_memory(plan["weights"])
            return None

    def say_out_of_memory(self, size: int) -> None:
        for text in OUT_OF_MEMORY:
            self._logger.log(ILogger.Severity.ERROR, text.format(size))


class RtxRuntime(Runtime):
    engine_type = RtxEngine
    defer_weights_loading = False


def module(name: str, machine: Machine, version: str) -> ModuleType:
    """A module that can be imported in the place of a flavour."""
    is_rtx = name == "tensorrt_rtx"
    made = ModuleType(name)
    runtime = RtxRuntime if is_rtx else Runtime
    values = {
        "__version__": version,
        "ILogger": ILogger,
        "Runtime": type("Runtime", (runtime,), {"machine": machine}),
        "ICudaEngine": RtxEngine if is_rtx else Engine,
        "IExecutionContext": Context,
        "ExecutionContextAllocationStrategy": ExecutionContextAllocationStrategy,
    }
    if is_rtx:
        values |= {
            "DynamicShapesKernelSpecializationStrategy": DynamicShapesKernelSpecializationStrategy,
            "IRuntimeConfig": RuntimeConfig,
            "IRuntimeCache": RuntimeCache,
        }
    vars(made).update(values)
    return made
