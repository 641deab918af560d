"""The transformer in three graphs: equal to the whole, and its measure of change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from castmate.engines.bundle import Bundle
from castmate.families.instantcharacter.graphs import PARTS, TABLE, WHOLE
from castmate.families.instantcharacter.schedule import rotary_tables
from export.bundle import graph_spec
from export.families.instantcharacter.graphs import TransformerGraph, export_graphs
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.step_caching import (
    FinishGraph,
    HeadGraph,
    TailGraph,
    step_caching_graphs,
)
from export.to_onnx import to_onnx
from tests.export.conftest import make_wide

Values = dict[str, Any]


def step(graphs: dict[str, Any], values: Values) -> Values:
    """One computed step through the three graphs, by the names of their tensors."""
    for name in PARTS:
        inputs, outputs = TABLE.graphs[name].inputs, TABLE.graphs[name].outputs
        found = graphs[name](*[values[key] for key in inputs])
        values |= dict(zip(outputs, found if len(outputs) > 1 else [found], strict=True))
    return values


def start(network: InstantCharacter) -> Values:
    rows, tokens = 4, 24
    return dict(export_graphs(network)[WHOLE]().inputs) | {
        "previous_head_residual": torch.zeros(rows, tokens, network.transformer.inner_dim)
    }


def modules(network: InstantCharacter) -> dict[str, Any]:
    denoiser = network.denoiser
    return {
        "transformer_head": HeadGraph(denoiser).eval(),
        "transformer_tail": TailGraph(denoiser).eval(),
        "transformer_finish": FinishGraph(denoiser).eval(),
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 3e-2)])
def test_the_three_parts_in_sequence_equal_the_whole(dtype: torch.dtype, tolerance: float) -> None:
    network = make_wide(dtype)
    values = start(network)
    with torch.no_grad():
        whole = TransformerGraph(network.denoiser)(
            *[values[key] for key in TABLE.graphs[WHOLE].inputs]
        )
        found = step(modules(network), values)["next_latents"]
    torch.testing.assert_close(found, whole, rtol=0, atol=tolerance)


def test_the_first_step_is_always_computed_and_an_equal_one_shows_no_change() -> None:
    network = make_wide()
    values = start(network)
    with torch.no_grad():
        first = step(modules(network), values)
        assert first["change"].isinf().all()
        first["previous_head_residual"] = first["head_residual"]
        again = step(modules(network), dict(first))
        assert again["change"].item() == 0
        moved = first | {"latents": first["latents"] + 0.1 * torch.randn_like(first["latents"])}
        assert 1e-3 < step(modules(network), moved)["change"].item() < 1


def test_a_cached_step_reuses_what_the_tail_added() -> None:
    network = make_wide()
    values = start(network)
    with torch.no_grad():
        computed = step(modules(network), dict(values))
        inputs = TABLE.graphs["transformer_finish"].inputs
        cached = modules(network)["transformer_finish"](*[computed[key] for key in inputs])
    assert torch.equal(cached, computed["next_latents"])


@pytest.mark.slow
@pytest.mark.timeout(600)  # it may be the first to export the bundle
def test_the_exported_parts_equal_the_whole_in_torch(
    network: InstantCharacter, cached_bundle: Bundle
) -> None:
    values = start(network)
    length = values["prompt_embeds"].shape[1]
    height, width = values["latents"].shape[1:3]
    axes = network.config.transformer["axes_dims_rope"]
    tables = rotary_tables(axes, length, height, width)
    for name, table in zip(("rotary_emb_cos", "rotary_emb_sin"), tables, strict=True):
        values[name] = torch.from_numpy(table)  # the operator for RoPE needs real pairs
    names = TABLE.graphs[WHOLE].inputs
    with torch.no_grad():
        whole = TransformerGraph(network.denoiser)(*[values[key] for key in names])
    graphs = cached_bundle.manifest.graphs
    engines = {name: engine(cached_bundle.file(graphs[name].files[0])) for name in PARTS}
    numpy_values = {name: value.numpy() for name, value in values.items()}
    found = step(engines, numpy_values)["next_latents"]
    np.testing.assert_allclose(found, whole.numpy(), rtol=0, atol=2e-5)


def engine(path: Path) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def call(*inputs: Tensor) -> Any:
        found = session.run(None, dict(zip(names, inputs, strict=True)))
        return found if len(found) > 1 else found[0]

    return call


@pytest.mark.slow
def test_weights_beside_the_graph_are_named_as_its_second_file(tmp_path: Path) -> None:
    graph = step_caching_graphs(make_wide())["transformer_finish"]()
    files = to_onnx(graph, tmp_path / "finish.onnx", external_bytes=0)
    assert [path.name for path in files] == ["finish.onnx", "finish.onnx.data"]
    assert files[1].stat().st_size >= 4 * 64 * 256, "the last projection is all that it has"
    assert [part.file for part in graph_spec(files).files] == ["finish.onnx", "finish.onnx.data"]
    session = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: value.numpy() for name, value in graph.inputs.items()})
    with torch.no_grad():
        expected = graph.module(*graph.inputs.values())
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=2e-5)
