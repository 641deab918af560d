"""Every layout of LoRA files fuses to what its definition says, and its removal leaves no trace."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_kohya_flux_lora_to_diffusers,
    _convert_xlabs_flux_lora_to_diffusers,
)
from torch import Tensor, nn

from export.families.instantcharacter.config import FLUX
from export.families.instantcharacter.graphs import TransformerGraph, export_graphs
from export.families.instantcharacter.lora_layers import lora_layers
from export.families.instantcharacter.network import InstantCharacter
from export.lora.fuse import FusedNetwork, Lora
from tests.export.lora.layouts import ALPHA, LAYOUTS, RANK, Layout


def copied(network: InstantCharacter) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def fusing(network: InstantCharacter) -> Iterator[FusedNetwork]:
    fusing = FusedNetwork(network)
    yield fusing
    fusing.remove()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_of_every_layout_fuses_to_what_its_definition_says(
    network: InstantCharacter, fusing: FusedNetwork, tmp_path: Path, name: str
) -> None:
    layout, before = LAYOUTS[name], copied(network)
    tensors = layout.tensors(before)
    fusing.apply([Lora(layout.save(tensors, tmp_path), 0.7)])
    after = copied(network)
    found = layout.weights(after)
    for layer, expected in layout.fused(before, tensors, 0.7).items():
        torch.testing.assert_close(found[layer], expected, rtol=1e-5, atol=1e-5, msg=layer)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert all(key.endswith(".weight") and before[key].ndim == 2 for key in changed)
    fusing.remove()
    assert all(torch.equal(before[key], now) for key, now in network.state_dict().items())


def test_several_files_fuse_one_after_the_other(
    network: InstantCharacter, fusing: FusedNetwork, tmp_path: Path
) -> None:
    before, loras = copied(network), []
    expected = LAYOUTS["ai-toolkit"].weights(before)
    for number, name in enumerate(("ai-toolkit", "diffusers, alpha in keys")):
        layout, folder = LAYOUTS[name], tmp_path / str(number)
        folder.mkdir()
        tensors = layout.tensors(before)
        loras.append(Lora(layout.save(tensors, folder), 0.3 - number))
        expected = {
            layer: expected[layer] + weight - layout.weights(before)[layer]
            for layer, weight in layout.fused(before, tensors, 0.3 - number).items()
        }
    fusing.apply(loras)
    found = LAYOUTS["ai-toolkit"].weights(network.state_dict())
    for layer, weight in expected.items():
        torch.testing.assert_close(found[layer], weight, rtol=1e-5, atol=1e-5, msg=layer)


def test_weights_in_bf16_are_rounded_once(network: InstantCharacter, tmp_path: Path) -> None:
    made = InstantCharacter(network.config).bfloat16()
    before = copied(made)
    layout = LAYOUTS["kohya"]
    tensors = layout.tensors(before)
    fusing = FusedNetwork(made)
    fusing.apply([Lora(layout.save(tensors, tmp_path), 0.7)])
    wide = {name: tensor.float() for name, tensor in before.items()}
    found = layout.weights(made.state_dict())
    for layer, expected in layout.fused(wide, tensors, 0.7).items():
        error = (found[layer].float() - expected).abs()
        assert (error <= expected.abs() * 2**-8 + 1e-5).all(), layer
    fusing.remove()
    assert all(torch.equal(before[key], now) for key, now in made.state_dict().items())


def test_the_root_of_the_rank_divides_alpha_where_the_metadata_says_so(
    network: InstantCharacter, fusing: FusedNetwork, tmp_path: Path
) -> None:
    plain = LAYOUTS["ai-toolkit"]
    metadata = {"transformer.lora_alpha": ALPHA, "transformer.use_rslora": True}
    layout = Layout(plain.parts, metadata=metadata)
    before = copied(network)
    tensors = layout.tensors(before)
    fusing.apply([Lora(layout.save(tensors, tmp_path))])
    found = layout.weights(network.state_dict())
    for layer, expected in plain.fused(before, tensors, ALPHA / math.sqrt(RANK)).items():
        torch.testing.assert_close(found[layer], expected, rtol=1e-5, atol=1e-5, msg=layer)


def test_a_fused_lora_changes_the_picture(
    network: InstantCharacter, fusing: FusedNetwork, tmp_path: Path
) -> None:
    layout = LAYOUTS["kohya"]
    path = layout.save(layout.tensors(network.state_dict()), tmp_path)
    inputs = export_graphs(network)["transformer"]().inputs
    graph = TransformerGraph(network.denoiser).eval()
    with torch.no_grad():
        plain = graph(*inputs.values())
        fusing.apply([Lora(path, 0.1)])
        changed = graph(*inputs.values())
        fusing.remove()
        again = graph(*inputs.values())
    assert (changed - plain).abs().max() > 1e-3
    assert torch.equal(again, plain)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["lora_unet_", "double_blocks.", "single_blocks."])
def test_bfls_names_mean_at_full_size_what_diffusers_converters_make_of_them(prefix: str) -> None:
    with torch.device("meta"):
        network = InstantCharacter(FLUX)
    xlabs = not prefix.startswith("lora")
    names = {
        name: rows
        for name, rows in lora_layers(network).items()
        if name.startswith(prefix) and (not xlabs or ".processor." in name)
    }
    assert len(names) >= 76
    down, up = ("down", "up") if xlabs else ("lora_down", "lora_up")
    state = {}
    for name, rows in names.items():
        layer = network.get_submodule(rows[0].layer)
        assert isinstance(layer, nn.Linear)
        state[f"{name}.{down}.weight"] = torch.randn(1, layer.in_features)
        state[f"{name}.{up}.weight"] = torch.randn(sum(row.num_rows for row in rows), 1)
    convert = (
        _convert_xlabs_flux_lora_to_diffusers if xlabs else _convert_kohya_flux_lora_to_diffusers
    )
    theirs = convert(dict(state))
    ours: dict[str, Tensor] = {}
    for name, rows in names.items():
        parts = state[f"{name}.{up}.weight"].split([row.num_rows for row in rows])
        for (layer_name, start, count), part in zip(rows, parts, strict=True):
            height = sum(row.num_rows for row in names[name] if row.layer == layer_name)
            ours.setdefault(layer_name, torch.zeros(height, 1))[start : start + count] = part
    converted = {key.removeprefix("transformer."): tensor for key, tensor in theirs.items()}
    assert {key.removesuffix(".lora_B.weight") for key in converted if "lora_B" in key} == {
        name.removeprefix("transformer.") for name in ours
    }
    for name, rows_of_b in ours.items():
        theirs_b = converted[f"{name.removeprefix('transformer.')}.lora_B.weight"]
        assert torch.equal(theirs_b, rows_of_b), name
