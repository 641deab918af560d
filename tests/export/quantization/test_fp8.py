"""FP8 layers: numbers in torch, operators in ONNX, and the same numbers in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from export.attention import ScaledDotProduct
from export.calibrate import Calibration, calibrate, fingerprint
from export.families.instantcharacter.graphs import (
    TransformerGraph,
    export_graphs,
)
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.unquantized import UNQUANTIZED
from export.graphs import ExportGraph
from export.quantization.fp8 import (
    E4M3_MAX,
    FEWEST_KEYS,
    FP8,
    FP8_ATTENTION,
    Fp8,
    Fp8Attention,
    Fp8Linear,
)
from export.quantization.none import NONE
from export.quantization.nvfp4 import NVFP4
from export.quantization.quantize import CalibrationError, errors, quantizable, quantize, recording
from export.quantization.scheme import Scheme
from export.samples import Prompts, samples
from export.to_onnx import to_onnx
from export.trajectory import denoise
from tests.export.conftest import make_wide


def relative_l2(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_a_layer_keeps_one_byte_a_weight_and_loses_a_few_percent() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(256, 64), torch.randn(8, 256)
    quantized = Fp8Linear(linear, x.abs().max().item())
    assert quantized.weight.dtype == torch.float8_e4m3fn
    assert quantized.weight.shape == (256, 64)
    with torch.no_grad():
        assert 1e-3 < relative_l2(quantized(x), linear(x)) < 0.05


def test_what_exceeds_the_recorded_range_is_clamped_and_not_wrapped() -> None:
    linear = nn.Linear(1, 1, bias=False)
    nn.init.ones_(linear.weight)
    quantized = Fp8Linear(linear, input_amax=2.0)
    with torch.no_grad():
        assert quantized(torch.tensor([[1000.0]])).item() == pytest.approx(2.0, rel=1e-6)
        assert quantized(torch.tensor([[-1000.0]])).item() == pytest.approx(-2.0, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_layer_of_zeros_stays_finite(dtype: torch.dtype) -> None:
    linear = nn.Linear(4, 4, dtype=dtype)
    nn.init.zeros_(linear.weight)
    quantized = Fp8Linear(linear, input_amax=0.0)
    with torch.no_grad():
        assert torch.isfinite(quantized(torch.randn(2, 4, dtype=dtype))).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_rounded_scale_is_the_scale_that_weights_were_divided_by(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(512, 512, dtype=dtype)
    quantized = Fp8Linear(linear, 1.0)
    exact = linear.weight.T.float() / quantized.weight_scale.float()
    nearest = exact.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    assert torch.equal(quantized.weight.float(), nearest.float())


def test_fp8_attention_is_close_to_exact_attention() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 128) for n in (24, 64, 64))
    amax = tuple(x.abs().max().item() for x in (q, k, v))
    exact = ScaledDotProduct()(q, k, v)
    found = Fp8Attention((amax[0], amax[1], amax[2]), 128, q)(q, k, v)
    assert 1e-3 < relative_l2(found, exact) < 0.06


def test_embedders_the_end_and_modulations_stay_as_they_are() -> None:
    denoiser = make_wide().denoiser
    names = [name for name, _ in quantizable(denoiser, FP8, UNQUANTIZED)]
    assert sorted(names) == sorted(
        [f"transformer.transformer_blocks.0.attn.{n}" for n in DOUBLE_ATTENTION]
        + [f"transformer.transformer_blocks.0.{n}" for n in DOUBLE_MLP]
        + [f"transformer.single_transformer_blocks.0.{n}" for n in SINGLE]
        + [f"subject_attention.{i}.{n}" for i in (0, 1) for n in ("to_k_ip", "to_v_ip")]
    )
    attention = [name for name, _ in quantizable(denoiser, FP8_ATTENTION, UNQUANTIZED)]
    assert set(attention) - set(names) == {
        f"subject_attention.{i}.{core}" for i in (0, 1) for core in ("joint_core", "subject_core")
    }
    assert list(quantizable(denoiser, NONE, ())) == []


@pytest.mark.parametrize("scheme", [FP8_ATTENTION, NVFP4])
def test_an_attention_over_too_few_keys_for_one_kernel_stays_in_the_wide_type(
    scheme: Scheme,
) -> None:
    assert scheme.replaces(ScaledDotProduct())
    assert scheme.replaces(ScaledDotProduct(FEWEST_KEYS))
    assert not scheme.replaces(ScaledDotProduct(FEWEST_KEYS - 1))


DOUBLE_ATTENTION = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
)
DOUBLE_MLP = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
SINGLE = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out")


def test_a_layer_that_never_ran_is_named_and_nothing_is_replaced(calibration: Calibration) -> None:
    denoiser = make_wide().denoiser
    amax = {k: v for k, v in calibration.amax.items() if "0.to_k_ip" not in k}
    with pytest.raises(CalibrationError, match=r"subject_attention\.0\.to_k_ip.*export\.calibrate"):
        quantize(denoiser, amax, FP8, UNQUANTIZED)
    assert not [m for m in denoiser.modules() if isinstance(m, Fp8Linear)]


def test_recording_sees_every_step_and_leaves_the_network_as_it_was(prompts: Prompts) -> None:
    network = make_wide()
    sample = samples(1, 512)[0]
    plain = denoise(network, sample, prompts, steps=2)
    one = calibrate(network, prompts, [sample], steps=1).amax
    two = calibrate(network, prompts, [sample, samples(2, 512)[1]], steps=2).amax
    assert set(one) == set(two)
    assert all(two[name].max() > 0 for name in two)
    assert any(not torch.equal(two[name], one[name]) for name in one)
    assert torch.equal(denoise(network, sample, prompts, steps=2), plain)


def test_each_layer_s_error_is_reported_alone(calibration: Calibration, prompts: Prompts) -> None:
    network = make_wide()
    sample = samples(1, 512)[0]
    report = errors(
        network.denoiser,
        calibration.amax,
        lambda: denoise(network, sample, prompts, steps=1),
        FP8_ATTENTION,
        UNQUANTIZED,
    )
    layers = quantizable(network.denoiser, FP8_ATTENTION, UNQUANTIZED)
    assert set(report) == {name for name, _ in layers}
    assert all(1e-4 < error < 0.2 for error in report.values()), report


def test_a_calibration_is_read_back_and_another_network_s_is_refused(
    calibration: Calibration, tmp_path: Path
) -> None:
    path = tmp_path / "calibration.json"
    calibration.save(path)
    weights = fingerprint(make_wide())
    assert Calibration.load(path, "wide", weights) == calibration
    with pytest.raises(CalibrationError, match="recorded on 'wide', this network is 'flux'"):
        Calibration.load(path, "flux", weights)
    path.write_text('{"network": "wide"')
    with pytest.raises(CalibrationError, match=r"no calibration.*export\.calibrate"):
        Calibration.load(path, "wide", weights)


def test_a_calibration_of_other_weights_is_refused_and_a_precision_makes_no_other(
    calibration: Calibration, tmp_path: Path
) -> None:
    path, network = tmp_path / "calibration.json", make_wide()
    calibration.save(path)
    assert fingerprint(make_wide(torch.bfloat16)) == calibration.weights
    with torch.no_grad():
        network.transformer.proj_out.weight[-1, -1] += 1
    with pytest.raises(CalibrationError, match="on other weights of 'wide'"):
        Calibration.load(path, "wide", fingerprint(network))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [FP8, FP8_ATTENTION])
def test_the_exported_graph_holds_standard_operators_and_computes_what_torch_computed(
    calibration: Calibration, scheme: Fp8, tmp_path: Path
) -> None:
    network = make_wide()
    replaced = quantize(network.denoiser, calibration.amax, scheme, UNQUANTIZED)
    torch.manual_seed(1)
    graph = export_graphs(network)["transformer"]()
    (path,) = to_onnx(graph, tmp_path / "transformer.onnx")
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {""}
    linears = [name for name in replaced if not name.endswith("_core")]
    stored = {w.name for w in model.graph.initializer if w.data_type == TensorProto.FLOAT8E4M3FN}
    assert {f"denoiser.{name}.weight" for name in linears} <= stored
    operators = [node.op_type for node in model.graph.node]
    attentions = 0 if scheme.attention else 4
    assert operators.count("Attention") == attentions
    assert operators.count("Softmax") == 4 - attentions

    with torch.no_grad():
        expected = graph.module(*graph.inputs.values())
        exact = TransformerGraph(make_wide().denoiser)(*graph.inputs.values())
    found = run(path, graph)
    start = graph.inputs["latents"]
    step = exact - start
    assert relative_l2(found - start, expected - start) < 2e-3, "rounding ties only"
    assert 5e-3 < relative_l2(found - start, step) < 0.1


def run(path: Path, graph: ExportGraph) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in graph.inputs.items()}
    (out,) = session.run(None, feed)
    return torch.from_numpy(np.asarray(out))


def test_e4m3_reaches_its_largest_value_and_the_largest_only() -> None:
    assert torch.finfo(torch.float8_e4m3fn).max == E4M3_MAX


def test_recording_ends_with_its_block(network: InstantCharacter) -> None:
    inputs = export_graphs(network)["transformer"]().inputs
    graph = TransformerGraph(network.denoiser).eval()
    with torch.no_grad(), recording(network.denoiser, UNQUANTIZED) as amax:
        graph(*inputs.values())
    seen = dict(amax)
    with torch.no_grad():
        graph(*[x * 3 if name == "prompt_embeds" else x for name, x in inputs.items()])
    assert amax == seen
