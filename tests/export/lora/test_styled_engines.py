"""TensorRT engines with styles: FP8 products stay FP8, and the branches run beside them."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

from castmate.engines.graphs import Range, shape_ranges
from castmate.engines.plan import Flavour
from castmate.families.instantcharacter.graphs import TABLE, WHOLE
from export.build import run
from export.builder import Job
from export.bundle import graph_spec
from export.calibrate import Calibration
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.step_caching import bundle_graphs
from export.families.instantcharacter.unquantized import UNQUANTIZED
from export.family import merges
from export.layers import Expected, check, parse
from export.lora.fuse import Lora
from export.lora.styles import RANK_STEP, Style, prepare
from export.precision import Precision, convert
from export.quantization.fp8 import FP8_ATTENTION
from export.quantization.quantize import quantize
from export.to_onnx import to_onnx
from tests.export.conftest import make_wide
from tests.export.lora.test_styles import weak, without_encoders

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx_cu13 is not installed")

PRODUCTS, ATTENTIONS = 12, 4


@pytest.fixture
def quantized(calibration: Calibration, tmp_path: Path) -> InstantCharacter:
    """The wide network in FP8, with a style that changes every layer."""
    network = make_wide(torch.bfloat16)
    path = weak(without_encoders("kohya"), network, tmp_path / "lora")
    prepare(network, [Style("ink", Lora(path))])
    quantize(network, calibration.amax, FP8_ATTENTION, UNQUANTIZED, merges(network))
    convert(network, torch.bfloat16)
    return network


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fp8_products_stay_beside_the_branches(quantized: InstantCharacter, tmp_path: Path) -> None:
    graph = bundle_graphs(quantized, step_caching=False)[WHOLE]()
    (path,) = to_onnx(graph, tmp_path / "styled.onnx", precision=Precision.BF16)
    one, side = Range(min=1, opt=1, max=1), Range(min=8, opt=16, max=24)
    length = Range(min=40, opt=40, max=40)
    ranks = Range(min=RANK_STEP, opt=RANK_STEP, max=64)
    ranges = {"B": one, "G": one, "L": length, "T": Range(min=1, opt=28, max=50), "r": ranks}
    profile = shape_ranges(
        graph_spec([path]).inputs, TABLE.ranges({**ranges, "h": side, "w": side})
    )
    files = (path, tmp_path / "styled.plan", tmp_path / "log.jsonl")
    job = Job(WHOLE, *files, Flavour.TENSORRT_RTX, "12.0", (profile,))
    run(job, tmp_path / "job.json")
    lines = [json.loads(line) for line in job.log.read_text().splitlines()]
    expected = Expected.of(onnx.load(path))
    assert len(expected.products) == PRODUCTS
    found = check(parse(lines), expected, WHOLE)
    assert found.gemms_reading["FP8"] == PRODUCTS
    assert found.attentions_reading["FP8"] == ATTENTIONS
    assert found.gemms_reading["BFloat16"] > PRODUCTS, "the branches"
    assert found.lone_casts == 1, "the latents, which the first layer and its branch read"
