"""The double offers nothing that the real modules do not, and notices what it says it notices."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType

import numpy as np
import pytest

from castmate.engines.cuda import Device
from castmate.engines.plan import Flavour
from tests.gpu_double import Card, Machine, install, tensorrt
from tests.gpu_double.cuda import Runtime, real

MIB = 2**20


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_every_function_of_cuda_is_one_of_the_real_module() -> None:
    names = [name for name, _ in inspect.getmembers(Runtime, inspect.isfunction)]
    offered = {name for name in names if name.startswith("cuda")}
    assert offered
    assert offered <= set(dir(real))


@pytest.mark.parametrize(
    ("double", "name"),
    [
        (tensorrt.Engine, "ICudaEngine"),
        (tensorrt.RtxEngine, "ICudaEngine"),
        (tensorrt.Context, "IExecutionContext"),
        (tensorrt.RuntimeConfig, "IRuntimeConfig"),
        (tensorrt.RuntimeCache, "IRuntimeCache"),
        (tensorrt.RtxRuntime, "Runtime"),
        (tensorrt.ExecutionContextAllocationStrategy, "ExecutionContextAllocationStrategy"),
        (
            tensorrt.DynamicShapesKernelSpecializationStrategy,
            "DynamicShapesKernelSpecializationStrategy",
        ),
    ],
)
def test_every_name_of_tensorrt_is_one_of_the_real_module(double: type, name: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    ours = public(double) - {"has_weights", "machine", "engine_type", "say_out_of_memory"}
    assert ours
    assert ours <= set(dir(getattr(trt, name)))


def other_thread(device: Device, machine: Machine) -> None:
    caught: list[BaseException] = []

    def use() -> None:
        try:
            machine.on_stream(device.stream, "a kernel ran")
        except AssertionError as error:
            caught.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(10)
    raise caught[0]


def freed(device: Device, machine: Machine) -> None:
    tensor = device.upload(np.zeros(4, np.float32))
    address = tensor.pointer
    del tensor
    machine.cards[0].read(address, 4)


def other_gpu(device: Device, machine: Machine) -> None:
    machine.choose(1)
    machine.on_stream(device.stream, "a kernel ran")


def beyond(device: Device, machine: Machine) -> None:
    tensor = device.upload(np.zeros(4, np.float32))
    machine.cards[0].read(tensor.pointer, 17)


def kept(device: Device, machine: Machine) -> None:
    machine.cards[0].allocate(1, "the forgotten", pooled=False)


@pytest.mark.parametrize(
    ("misuse", "says"),
    [
        (other_thread, "which has chosen no GPU"),
        (freed, "was read after it was given back"),
        (other_gpu, "on a stream that is not one of GPU 1"),
        (beyond, "17 bytes that nobody was given"),
        (kept, "the forgotten .* was never given back"),
    ],
)
def test_misuse_fails_the_test_even_where_the_error_is_swallowed(
    misuse: Callable[[Device, Machine], None], says: str
) -> None:
    with pytest.raises(AssertionError, match=says):
        swallowed(misuse)


def swallowed(misuse: Callable[[Device, Machine], None]) -> None:
    with install(Card(), Card()) as machine, suppress(AssertionError):
        misuse(Device(), machine)


def test_what_the_pool_keeps_is_not_there_for_weights_until_it_is_trimmed() -> None:
    with install(Card(size=100 * MIB)) as machine:
        device = Device()
        tensor = device.allocate((80 * MIB,), "uint8")
        del tensor
        device.wait()
        assert device.free_bytes() == 20 * MIB
        device.trim()
        assert device.free_bytes() == 100 * MIB
        assert machine.cards[0].threshold == 2**64 - 1


@pytest.mark.parametrize("flavour", list(Flavour))
def test_only_rtx_has_what_only_rtx_has(flavour: Flavour) -> None:
    with install(Card()) as machine:
        made: ModuleType = tensorrt.module(flavour.value, machine, "1")
        is_rtx = flavour is Flavour.TENSORRT_RTX
        assert hasattr(made.ICudaEngine, "unload_weights") is is_rtx
        assert hasattr(made.Runtime, "defer_weights_loading") is is_rtx
