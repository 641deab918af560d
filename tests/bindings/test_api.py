"""Every name of TensorRT and CUDA that we use is in the bindings of each version that we allow.

The bindings are those that users install, without the libraries behind them, which take a GPU.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.bindings.names import Name, of_cuda, of_tensorrt

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BINDINGS = ROOT / ".bindings"
FILES = (*sorted((ROOT / "castmate/engines").glob("*.py")), ROOT / "export/builder.py")
LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
DATA_CENTRE = ("10", "11")
RTX_ONLY = {
    "ComputeCapability",
    "DynamicShapesKernelSpecializationStrategy",
    "create_runtime_cache",
    "defer_weights_loading",
    "deserialize",  # of a cache
    "dynamic_shapes_kernel_specialization_strategy",
    "load_weights",
    "num_compute_capabilities",
    "set_compute_capability",
    "set_runtime_cache",
    "unload_weights",
    "weights_loaded",
}
"""What the code uses only where it has found TensorRT-RTX."""


@pytest.fixture(scope="module")
def used() -> set[Name]:
    return set().union(*map(of_tensorrt, FILES))


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of libraries under the names that the bindings of both versions load."""
    if (compiler := shutil.which("cc") or shutil.which("gcc")) is None:
        pytest.skip("no C compiler, so the bindings cannot be imported without TensorRT")
    folder = tmp_path_factory.mktemp("stubs")
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "stub.so"), str(HERE / "stub.c")]
    subprocess.run(command, check=True, timeout=60)
    for library in LIBRARIES:
        for major in DATA_CENTRE:
            (folder / f"{library}.so.{major}").symlink_to("stub.so")
    return folder


def look_up(module: str, names: Iterable[Name], **environment: str) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "look_up.py"), module]
    done = subprocess.run(
        command,
        input=json.dumps([(name.owners, name.name) for name in sorted(names)]),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def look_up_tensorrt(major: str, names: Iterable[Name], stubs: Path) -> dict[str, Any]:
    assert (BINDINGS / ".installed").exists(), "run `make bindings`"
    paths = {"PYTHONPATH": str(BINDINGS / major), "LD_LIBRARY_PATH": str(stubs)}
    return look_up("tensorrt_bindings", names, **paths)


@pytest.mark.parametrize("major", DATA_CENTRE)
def test_tensorrt_has_every_name_that_is_not_of_rtx_alone(
    major: str, used: set[Name], stubs: Path
) -> None:
    found = look_up_tensorrt(major, used, stubs)
    assert found["version"] == pinned(major)
    missing = {name.partition(".")[0] for _, name in found["missing"]}
    wrong = sorted(
        f"{name.name} ({name.where})" for name in used if name.name in missing - RTX_ONLY
    )
    assert wrong == []


def test_tensorrt_rtx_has_every_name(used: set[Name]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx_cu13 is not installed")
    assert look_up("tensorrt_rtx", used)["missing"] == []


def test_what_is_called_rtx_s_own_is_used_and_no_other_tensorrt_has_it(
    used: set[Name], stubs: Path
) -> None:
    named = {name for name in used if name.name.partition(".")[0] in RTX_ONLY}
    assert {name.name.partition(".")[0] for name in named} == RTX_ONLY
    missing = look_up_tensorrt("11", named, stubs)["missing"]
    assert {name.partition(".")[0] for _, name in missing} == RTX_ONLY


def test_cuda_has_every_name() -> None:
    names = set().union(*map(of_cuda, FILES))
    assert {"cudaMallocAsync", "cudaMemcpyHostToDevice"} <= {name.name for name in names}
    assert look_up("cuda.bindings.runtime", names)["missing"] == []


def test_the_names_of_a_file_are_found_and_a_wrong_one_is_missed(
    used: set[Name], stubs: Path, tmp_path: Path
) -> None:
    assert {
        (("ICudaEngine",), "get_tensor_name"),
        (("IExecutionContext",), "execute_async_v3"),
        (("Runtime",), "deserialize_cuda_engine"),
        (("OnnxParser",), "parse_from_file"),
        (("EngineInspector",), "get_engine_information"),
        ((), "ProfilingVerbosity.DETAILED"),
    } <= {(name.owners, name.name) for name in used}
    source = tmp_path / "source.py"
    source.write_text(
        "flag = self.library.trt.BuilderFlag.FASTER\n"
        "config.set_flag(flag)\n"
        "self._engine.device_memory_size_v9\n"
        "self._cuda.call('cudaMallocAsynk')\n"
    )
    missing = look_up_tensorrt("11", of_tensorrt(source), stubs)["missing"]
    assert sorted(name for _, name in missing) == ["BuilderFlag.FASTER", "device_memory_size_v9"]
    assert look_up("cuda.bindings.runtime", of_cuda(source))["missing"] == [[[], "cudaMallocAsynk"]]


def test_the_versions_are_the_ends_of_what_may_be_installed() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (allowed,) = [each for each in extras["tensorrt"] if each.startswith("tensorrt")]
    low, high = re.findall(r"[\d.]+", allowed)
    assert pinned("10").startswith(low)
    assert pinned("11").startswith(f"{int(high) - 1}.")


def pinned(major: str) -> str:
    """The version in the requirements file."""
    return (HERE / f"requirements-{major}.txt").read_text().strip().rpartition("==")[2]
