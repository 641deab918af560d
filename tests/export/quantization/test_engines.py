"""Engines of every scheme, really built by TensorRT-RTX: the kernels that were asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from castmate.engines.manifest import ScaleLayout
from castmate.engines.plan import Flavour, ShapeRange
from export.build import run
from export.builder import Job
from export.bundle import layouts
from export.errors import ExportError, SilentFallback
from export.layers import Expected, check, parse
from export.precision import Precision
from export.quantization.none import NONE
from export.quantization.registry import SCHEMES, schemes_for
from export.targets import check_target
from tests.export.quantization.exporting import IN, exported

RTX = Flavour.TENSORRT_RTX


@pytest.fixture(scope="module", params=["nvfp4", "nvfp4-svdquant", "int8", "int4"])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of a scheme in bf16, exported once for all targets."""
    path = tmp_path_factory.mktemp("graph") / f"{request.param}.onnx"
    exported(SCHEMES[request.param], path, Precision.BF16)
    return path


@pytest.mark.slow
def test_every_gpu_that_gains_runs_the_kernels_that_were_asked_for(
    graph: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx_cu13 is not installed")
    scheme = SCHEMES[graph.stem]
    kernel, *_ = scheme.kernels
    expected = Expected.of(onnx.load(graph))
    assert set(expected.products.values()) == {kernel}
    assert len(expected.products) == 2
    rows = ShapeRange(min=(1, 16, IN), opt=(1, 24, IN), max=(1, 64, IN))
    built = [t for t in kernel.targets[RTX] if t in scheme.gains and t in ("8.6", "8.9", "12.0")]
    assert built
    for target in built:
        folder = tmp_path / target
        folder.mkdir()
        job = Job("x", graph, folder / "plan", folder / "log", RTX, target, ({"x": rows},))
        run(job, folder / "job.json")
        layers = parse(json.loads(line) for line in job.log.read_text().splitlines())
        found = check(layers, expected, "x")
        products = [layer for layer in layers if kernel.datatype in layer.inputs and layer.is_gemm]
        assert len(products) == found.gemms_reading[kernel.datatype] == 2
        assert {layer.inputs.count(kernel.datatype) for layer in products} == {kernel.operands}
        if kernel.operands == 2:  # narrow weights widened to a product in bf16 would be one
            once = [replace(layer, inputs=tuple(set(layer.inputs))) for layer in layers]
            with pytest.raises(SilentFallback, match=f"2 of 2 {kernel.datatype} products do not"):
                check(once, expected, "x")


@pytest.mark.parametrize(
    ("flavour", "target", "scheme", "instead"),
    [
        (RTX, "8.6", "fp8", "int8 or int4"),
        (RTX, "8.6", "nvfp4", "int8 or int4"),
        (RTX, "8.9", "nvfp4", "fp8 or fp8-attention or int4"),
        (Flavour.TENSORRT, "9.0", "nvfp4", "fp8"),
        (Flavour.TENSORRT, "12.0", "int8", "fp8 or fp8-attention or nvfp4 or nvfp4-svdquant"),
    ],
)
def test_a_gpu_without_a_scheme_s_kernels_is_refused_with_the_right_schemes(
    flavour: Flavour, target: str, scheme: str, instead: str
) -> None:
    says = rf"--target {target} has no .*Use --quantization {instead}, or choose another target"
    with pytest.raises(ExportError, match=says):
        check_target(flavour, target, SCHEMES[scheme].kernels)


def test_a_gpu_that_gains_from_none_draws_without() -> None:
    assert schemes_for(Flavour.TENSORRT, "7.5") == [NONE]


def test_a_scheme_gains_only_where_its_kernels_are() -> None:
    for scheme in SCHEMES.values():
        for target in scheme.gains:
            assert any(
                target in kernel.targets[flavour]
                for kernel in scheme.kernels[:1]
                for flavour in Flavour
            ), (scheme, target)


def test_the_manifest_says_how_each_scheme_lays_out_its_scales() -> None:
    found = layouts(SCHEMES["nvfp4"])
    assert set(found) == {"nvfp4", "fp8-attention"}
    assert found["nvfp4"].block == 16
    assert found["fp8-attention"].block is None
    assert layouts(SCHEMES["int4"])["int4"] == ScaleLayout(
        weights="int4", scales="one for each block", block=128
    )
    assert layouts(NONE) == {}
