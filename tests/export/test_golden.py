"""Golden tensors are those of the network in fp32; rounding alone may differ from them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from castmate.engines.golden import Call, save
from castmate.families.instantcharacter.graphs import OPTIONAL, graph_names
from export.calibrate import Calibration
from export.errors import ExportError
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.step_caching import step_caching_graphs
from export.families.instantcharacter.unquantized import UNQUANTIZED
from export.family import merges
from export.golden_limits import LEAST, MARGIN, error, golden_limits
from export.precision import Precision
from export.quantization.nvfp4 import NVFP4
from export.quantization.quantize import quantize
from tests.export.conftest import make_wide, record_golden

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def narrow() -> InstantCharacter:
    return make_wide(torch.bfloat16)


@pytest.fixture(scope="module")
def calls(narrow: InstantCharacter) -> dict[str, Call]:
    return record_golden(narrow, step_caching=True)


def test_every_graph_is_recorded_on_inputs_that_bf16_holds(calls: dict[str, Call]) -> None:
    assert set(calls) == set(graph_names(step_caching=True, optional=OPTIONAL))
    for call in calls.values():
        for values in call.inputs.values():
            if values.dtype == np.float32:
                assert not (values.view(np.uint32) & 0xFFFF).any()
    head = calls["transformer_head"]
    assert head.inputs["step"] == 1
    assert np.abs(head.inputs["previous_head_residual"]).max() > 0, "not that of the first step"
    assert np.isfinite(head.outputs["change"]).all()
    assert len(head.inputs["prompt_embeds"]) == 2, "with a negative prompt"
    rows, columns = head.inputs["latents"].shape[1:3]
    assert rows != columns


def test_narrow_weights_compute_in_fp32_and_stay_as_they_are(
    narrow: InstantCharacter,
) -> None:
    assert {weight.dtype for weight in narrow.parameters()} == {torch.bfloat16}
    unmatted = copy.deepcopy(narrow)
    unmatted.matte = None  # a rounded alpha may move the crop by a pixel, and then all differ
    wide = record_golden(copy.deepcopy(unmatted).float(), step_caching=True)
    for graph, call in record_golden(unmatted, step_caching=True).items():
        for name, values in call.outputs.items():
            expected = wide[graph].outputs[name]
            assert values.dtype == expected.dtype
            # What remains is the rounding of inputs on the way; bf16 arithmetic is at 1e-2.
            difference = np.linalg.norm(values.astype(float) - expected)
            assert difference <= 4e-3 * np.linalg.norm(expected), f"{graph}.{name}"


def test_the_same_network_makes_the_same_file(
    narrow: InstantCharacter, calls: dict[str, Call], tmp_path: Path
) -> None:
    save(tmp_path / "1.npz", calls)
    save(tmp_path / "2.npz", record_golden(narrow, step_caching=True))
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()


def test_a_value_that_is_not_finite_is_no_golden_tensor(
    calls: dict[str, Call], tmp_path: Path
) -> None:
    graph = calls["text_encoder"]
    outputs = {name: values * np.inf for name, values in graph.outputs.items()}
    with pytest.raises(ValueError, match="`pooled_projections` of graph 'text_encoder' is not"):
        save(tmp_path / "x.npz", {"text_encoder": Call(graph.graph, graph.inputs, outputs)})


def test_a_quantized_graph_is_held_to_what_its_own_rounding_costs(
    narrow: InstantCharacter, calls: dict[str, Call], calibration: Calibration
) -> None:
    network, graph = copy.deepcopy(narrow), "transformer_head"
    quantize(network.denoiser, calibration.amax, NVFP4, UNQUANTIZED, merges(network))
    makers, call = step_caching_graphs(network), calls[graph]
    allowed = golden_limits({graph: call}, Precision.BF16, makers)[graph]
    assert allowed == pytest.approx(MARGIN * error(makers[graph](), call))
    assert LEAST[Precision.BF16] < allowed < 0.5
    layer = network.get_submodule("transformer.transformer_blocks.0.ff.net.2")
    scale = layer.get_buffer("weight_scale")
    # What an engine would compute that took the wrong scale for the weights of one layer.
    scale.mul_(2)
    assert error(makers[graph](), call) > allowed
    scale.mul_(4)
    with pytest.raises(ExportError, match=f"{graph!r} computes something else.*--quantization"):
        golden_limits({graph: call}, Precision.BF16, makers)
