"""Plans are refused for the right reason; running them is in tests/gpu."""

from __future__ import annotations

import hashlib
import mmap
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from castmate.engines.bundle import Bundle
from castmate.engines.choose import open_runtime
from castmate.engines.cuda import Device, DeviceTensor, widen
from castmate.engines.library import Library
from castmate.engines.plan import Flavour, LayerCounts, PlanManifest, ShapeRange, manifest_path
from castmate.engines.tensorrt import TensorRTRuntime, check_plan, choose_profile
from castmate.errors import BundleCorrupt, BundleMismatch

HERE = {
    "flavour": Flavour.TENSORRT_RTX,
    "tensorrt_version": "1.7.1.116",
    "compute_capability": "8.9",
}
WIDTH = ShapeRange(min=(1, 32), opt=(1, 64), max=(1, 96))


def write_plan(folder: Path, **changes: Any) -> Path:
    plan = folder / "transformer.plan"
    plan.write_bytes(b"the plan")
    manifest = PlanManifest(
        **{
            **HERE,
            "graph": "transformer",
            "onnx_sha256": "abc",
            "profiles": ({"latents": WIDTH},),
            "plan_sha256": hashlib.sha256(b"the plan").hexdigest(),
            "num_bytes": 8,
            "weight_bytes": 6,
            "activation_bytes": (2,),
            "layers": LayerCounts(
                layers=1,
                gemms=1,
                gemms_reading={"FP8": 1},
                fused_attentions=0,
                attentions_reading={},
                lone_casts=0,
            ),
            **changes,
        }
    )
    manifest_path(plan).write_text(manifest.model_dump_json())
    return plan


def test_a_plan_for_this_machine_is_accepted(tmp_path: Path) -> None:
    assert check_plan(write_plan(tmp_path), **HERE).graph == "transformer"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tensorrt_version": "1.6.0"}, "TensorRT version: built for 1.6.0, here is 1.7.1.116"),
        ({"compute_capability": "12.0"}, "compute capability: built for 12.0, here is 8.9"),
        ({"flavour": Flavour.TENSORRT}, "flavour: built for tensorrt, here is tensorrt_rtx"),
    ],
)
def test_a_stale_plan_is_refused_with_what_differs(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(BundleMismatch, match=rf"{says}.*export\.build"):
        check_plan(write_plan(tmp_path, **changes), **HERE)  # type: ignore[arg-type]


def test_every_difference_is_named_at_once(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, tensorrt_version="1.6.0", compute_capability="12.0")
    found = PlanManifest.beside(plan).differences(
        **HERE,  # type: ignore[arg-type]
        onnx_sha256="def",
        profiles=({"latents": WIDTH.model_copy(update={"max": (1, 64)})},),
    )
    assert len(found) == 4
    assert (
        PlanManifest.beside(plan).differences(
            flavour=Flavour.TENSORRT_RTX, tensorrt_version="1.6.0", compute_capability="12.0"
        )
        == []
    )


@pytest.mark.parametrize("content", [b"the pl", b"THE PLAN", None])
def test_a_cut_changed_or_missing_plan_is_refused(tmp_path: Path, content: bytes | None) -> None:
    plan = write_plan(tmp_path)
    if content is None:
        plan.unlink()
    else:
        plan.write_bytes(content)
    with pytest.raises(BundleCorrupt, match=r"transformer\.plan.*export\.build"):
        check_plan(plan, **HERE)  # type: ignore[arg-type]


def test_a_bundle_of_onnx_graphs_is_refused() -> None:
    with pytest.raises(
        BundleMismatch, match=r"for engine 'onnxruntime', not tensorrt or tensorrt_rtx"
    ):
        TensorRTRuntime(Bundle.open("toon"))


def plans(flavour: str) -> Bundle:
    toon = Bundle.open("toon")
    return Bundle(toon.path, toon.manifest.model_copy(update={"engine": flavour}))


@pytest.mark.parametrize(("flavour", "extra"), [("tensorrt", "tensorrt"), ("tensorrt_rtx", "rtx")])
def test_a_missing_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, flavour: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, flavour, None)
    with pytest.raises(BundleMismatch, match=rf"not installed.*castmate\[{extra}\]"):
        TensorRTRuntime(plans(flavour))


def test_a_missing_cuda_binding_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(BundleMismatch, match="pip install 'cuda-python"):
        Device()


def test_a_machine_without_a_gpu_is_told_what_runs_there() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", exc_type=ImportError)
    error, count = runtime.cudaGetDeviceCount()
    if not int(error) and count:
        pytest.skip("there is a GPU")
    with pytest.raises(BundleMismatch, match=r"no NVIDIA GPU.*onnxruntime"):
        Device()


def test_the_first_profile_that_allows_every_shape_is_taken() -> None:
    small = {"latents": WIDTH, "sigmas": ShapeRange(min=(2,), opt=(2,), max=(2,))}
    large = small | {"sigmas": ShapeRange(min=(2,), opt=(29,), max=(51,))}
    assert choose_profile("x", [small, large], {"latents": (1, 32), "sigmas": (2,)}) == 0
    assert choose_profile("x", [small, large], {"latents": (1, 32), "sigmas": (29,)}) == 1


@pytest.mark.parametrize("shape", [(1, 31), (1, 97), (2, 64), (64,)])
def test_a_shape_outside_every_profile_is_refused_with_what_is_allowed(
    shape: tuple[int, ...],
) -> None:
    with pytest.raises(BundleMismatch, match=r"'x' .*`latents` of \[1, 32\] to \[1, 96\]"):
        choose_profile("x", [{"latents": WIDTH}], {"latents": shape})


def test_bf16_bits_become_the_same_numbers_in_fp32() -> None:
    values = np.array([1.0, -2.5, 3.140625, 0.0], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(widen(bits), values)


def test_a_tensor_knows_its_size() -> None:
    assert DeviceTensor(0, (2, 3, 4), "bfloat16").num_bytes == 48


def test_the_bundle_decides_which_runtime_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    toon = Bundle.open("toon")
    assert open_runtime(toon).name == "onnxruntime"
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BundleMismatch, match="holds plans of tensorrt"):
        open_runtime(plans("tensorrt"))
    unknown = Bundle(toon.path, toon.manifest.model_copy(update={"engine": "abacus"}))
    with pytest.raises(BundleMismatch, match="for engine 'abacus'"):
        open_runtime(unknown)


def test_the_real_library_takes_a_mapped_file_and_its_words_are_kept(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    library = Library(Flavour.TENSORRT_RTX, "flux", None)
    assert library.can_defer
    (tmp_path / "no.plan").write_bytes(b"no plan" * 1000)
    with (tmp_path / "no.plan").open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    for defer in (False, True):
        assert library.deserialize(mapped, defer=defer) is None
        assert library.errors
        assert not library.is_out_of_memory()
