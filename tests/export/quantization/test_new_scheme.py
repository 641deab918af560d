"""A scheme of a dozen lines and its row in the registry: everything else takes it as it is.

It stores weights in INT16 and computes as before. What it writes here is what CONTRIBUTING lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxscript
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from castmate.engines.plan import Flavour
from export.all import parser, recipe_of
from export.bundle import describe
from export.errors import ExportError, SilentFallback
from export.families.instantcharacter.graphs import export_graphs
from export.families.instantcharacter.unquantized import ENCODERS, UNQUANTIZED
from export.graphs import ExportGraph
from export.layers import Expected, Layer, check
from export.precision import Precision, QuantizedLayer, convert
from export.quantization.quantize import quantizable, quantize, ranges_needed, recording
from export.quantization.registry import SCHEMES, least_psnr_db
from export.quantization.scheme import Kernel, Measure, Ranges, Scheme
from export.recipe import Recipe
from export.sizes import graph_sizes, meta_network
from export.targets import check_target
from export.to_onnx import to_onnx
from tests.export.conftest import WIDE, make_wide


@torch.library.custom_op("castmate_test::dequantize_int16", mutates_args=())
def dequantize_int16(weight: Tensor, scale: Tensor) -> Tensor:
    return weight.to(scale.dtype) * scale


@dequantize_int16.register_fake
def _(weight: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(weight, dtype=scale.dtype)


op: Any = onnxscript.opset23


def export_dequantize_int16(weight: Any, scale: Any) -> Any:
    return op.DequantizeLinear(weight, scale)


class Int16Linear(QuantizedLayer):
    keeps_dtype = ("scale",)  # integers are never converted; the scale is to stay as it was made

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().T
        scale = weight.abs().max() / 32767
        self.register_buffer("weight", (weight / scale).round().to(torch.int16).contiguous())
        self.register_buffer("scale", scale)
        self.bias: Tensor | None = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        weight = dequantize_int16(self.get_buffer("weight"), self.get_buffer("scale"))
        y: Tensor = x @ weight
        return y if self.bias is None else y + self.bias


KERNEL = Kernel(
    name="INT16 arithmetic",
    attention=False,
    stored=TensorProto.INT16,
    datatype="Int16",
    targets=dict.fromkeys(Flavour, ("8.0", "8.6")),
)


class Int16Weights(Scheme):
    name = "int16-weights"
    kernels = (KERNEL,)
    weight_bytes = 2.0
    psnr_db: Mapping[Precision, float] = {Precision.FP32: 20}
    translations: Mapping[Callable[..., Any], Callable[..., Any]] = {
        torch.ops.castmate_test.dequantize_int16.default: export_dequantize_int16
    }

    def replaces(self, layer: nn.Module) -> bool:
        return isinstance(layer, nn.Linear)

    def ranges(self, name: str, layer: nn.Module) -> Mapping[str, Measure]:
        return {}

    def counterpart(self, module: nn.Module, name: str, ranges: Ranges) -> nn.Module:
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        return Int16Linear(layer)


@pytest.fixture
def scheme(monkeypatch: pytest.MonkeyPatch) -> Scheme:
    """The scheme, with its row."""
    made = Int16Weights()
    monkeypatch.setitem(SCHEMES, made.name, made)
    return made


def recipe(*flags: str) -> Recipe:
    return recipe_of(parser().parse_args(["--out", "x", *flags]))


def test_the_command_line_the_manifest_and_verification_know_it(scheme: Scheme) -> None:
    assert recipe("--quantization", "int16-weights").quantization is scheme
    assert describe(Precision.BF16, scheme) == "bf16, transformer int16-weights"
    assert least_psnr_db(Precision.FP32, scheme) == 20
    with pytest.raises(ExportError, match=r"bf16 with int16-weights; there are.*fp32 with int16"):
        least_psnr_db(Precision.BF16, scheme)


def test_a_target_without_its_kernel_is_refused_with_what_to_use_instead(
    scheme: Scheme,
) -> None:
    chosen = replace(
        recipe("--quantization", scheme.name), flavour=Flavour.TENSORRT_RTX, target="12.0"
    )
    says = (
        r"--target 12\.0 has no INT16 arithmetic; these have: 8\.0, 8\.6\. Use --quantization fp8"
    )
    with pytest.raises(ExportError, match=says):
        chosen.check(WIDE)


def test_it_needs_no_calibration_and_its_bytes_are_counted(scheme: Scheme) -> None:
    denoiser, kept = make_wide().denoiser, UNQUANTIZED
    assert ranges_needed(denoiser, scheme, kept) == frozenset()
    weights = sum(
        layer.get_parameter("weight").numel() for _, layer in quantizable(denoiser, scheme, kept)
    )
    counted = graph_sizes(meta_network(WIDE), scheme, (*kept, *ENCODERS))
    assert sum(size.quantized for size in counted.values()) == weights > 0


@pytest.mark.slow
def test_its_graph_computes_what_torch_computes_and_its_engine_must_run_its_kernel(
    scheme: Scheme, tmp_path: Path
) -> None:
    network, exact = make_wide(), make_wide()
    replaced = quantize(network.denoiser, {}, scheme, UNQUANTIZED)
    convert(network, torch.float32)
    torch.manual_seed(1)
    graph = export_graphs(network)["transformer"]()
    (path,) = to_onnx(graph, tmp_path / "transformer.onnx")
    with torch.no_grad():
        expected = graph.module(*graph.inputs.values())
        unchanged = export_graphs(exact)["transformer"]().module(*graph.inputs.values())
    found = run(path, graph)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(expected, unchanged)

    asked = Expected.of(onnx.load(path))
    assert set(asked.products.values()) == {KERNEL}
    assert len(asked.products) == len(replaced)
    with pytest.raises(ExportError, match="has no INT16 arithmetic"):
        check_target(Flavour.TENSORRT_RTX, "8.9", asked.kernels)
    good = engine(asked, "Int16")
    assert check(good, asked, "transformer").gemms_reading["Int16"] == len(replaced)
    with pytest.raises(SilentFallback, match=f"{len(replaced)} Int16 products do not run in Int16"):
        check(engine(asked, "BFloat16"), asked, "transformer")


def run(path: Path, graph: ExportGraph) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {name: value.numpy() for name, value in graph.inputs.items()})
    return torch.from_numpy(np.asarray(out))


def engine(asked: Expected, datatype: str) -> list[Layer]:
    """What a builder would report."""
    products = [
        Layer(name, "gemm", ("BFloat16", datatype), ("BFloat16",), "", frozenset({name}))
        for name in asked.products
    ]
    attentions = [
        Layer("_gemm_mha_v2", "kgen", ("BFloat16",), ("BFloat16",), "", frozenset())
        for _ in range(asked.attentions)
    ]
    return [*products, *attentions]


def test_one_calibration_serves_every_scheme_in_the_registry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class PerChannel(Int16Weights):
        name = "per-channel"

        def ranges(self, name: str, layer: nn.Module) -> Mapping[str, Measure]:
            return {f"{name}.channels": lambda inputs: inputs[0].detach().abs().amax(0)}

    monkeypatch.setitem(SCHEMES, "per-channel", PerChannel())
    module: Any = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    with torch.no_grad(), recording(module, (".1",)) as amax:
        module(torch.tensor([[1.0, -5.0, 0.0]]))
        module(torch.tensor([[2.0, 4.0, 0.0]]))
    assert {key: value.tolist() for key, value in amax.items()} == {
        "0": 5.0,
        "0.channels": [2.0, 5.0, 0.0],
    }
