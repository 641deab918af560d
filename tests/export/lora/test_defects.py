"""A LoRA file with any defect is refused with its names, and the weights stay as they were."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from export.errors import ExportError
from export.families.instantcharacter.network import InstantCharacter
from export.lora.fuse import FusedNetwork, Lora
from tests.export.lora.layouts import LAYOUTS, RANK, Layout

Tensors = dict[str, Tensor]

DIFFUSERS, KOHYA = LAYOUTS["diffusers, alpha in keys"], LAYOUTS["kohya"]
Q = "transformer.transformer_blocks.0.attn.to_q"
QKV = "lora_unet_double_blocks_0_img_attn_qkv"


def put(key: str, tensor: Tensor) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.__setitem__(key, tensor)


def drop(*keys: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for key in keys:
            del tensors[key]

    return change


def sdxl(tensors: Tensors) -> None:
    tensors.clear()
    tensors["lora_unet_down_blocks_1_to_q.lora_down.weight"] = torch.zeros(4, 640)
    tensors["lora_unet_down_blocks_1_to_q.lora_up.weight"] = torch.zeros(640, 4)


DEFECTS: Mapping[str, tuple[Layout, Callable[[Tensors], None], str]] = {
    "alpha is an integer": (
        DIFFUSERS,
        put(f"{Q}.alpha", torch.tensor(4)),
        rf"{Q}: alpha is int64 \(\), not one number",
    ),
    "alpha is a vector": (
        KOHYA,
        put(f"{QKV}.alpha", torch.ones(2)),
        rf"{QKV}: alpha is float32 \(2,\), not one number",
    ),
    "alpha is not finite": (
        KOHYA,
        put(f"{QKV}.alpha", torch.tensor(float("nan"))),
        rf"{QKV}: alpha is nan; a finite number above 0",
    ),
    "alpha is zero": (DIFFUSERS, put(f"{Q}.alpha", torch.tensor(0.0)), rf"{Q}: alpha is 0\.0"),
    "alpha stands alone": (
        KOHYA,
        put("lora_unet_img_in_2.alpha", torch.tensor(1.0)),
        r"lora_unet_img_in_2: its down and up factor is missing",
    ),
    "one half is missing": (
        DIFFUSERS,
        drop(f"{Q}.lora_B.weight"),
        rf"{Q}: its up factor is missing",
    ),
    "the other half is missing": (
        KOHYA,
        drop(f"{QKV}.lora_down.weight"),
        rf"{QKV}: its down factor is missing",
    ),
    "an unknown key": (
        DIFFUSERS,
        put("transformer.x_embedder.gate", torch.zeros(1)),
        r"transformer\.x_embedder\.gate: unknown",
    ),
    "an unknown layer": (
        KOHYA,
        lambda tensors: tensors.update(
            {
                "lora_unet_double_blocks_7_img_mlp_0.lora_down.weight": torch.zeros(4, 160),
                "lora_unet_double_blocks_7_img_mlp_0.lora_up.weight": torch.zeros(640, 4),
            }
        ),
        r"lora_unet_double_blocks_7_img_mlp_0: the network has no such layer",
    ),
    "a wrong shape": (
        DIFFUSERS,
        put(f"{Q}.lora_B.weight", torch.zeros(7, RANK)),
        rf"{Q}: \(7, 4\) x \(4, 160\), the layer is \(160, 160\)",
    ),
    "a wrong shape of merged layers": (
        KOHYA,
        put(f"{QKV}.lora_up.weight", torch.zeros(160, RANK)),
        rf"{QKV}: \(160, 4\) x \(4, 160\), the layer is \(480, 160\)",
    ),
    "two ranks": (
        DIFFUSERS,
        put(f"{Q}.lora_B.weight", torch.zeros(160, RANK + 1)),
        rf"{Q}: \(160, 5\) x \(4, 160\) is no product",
    ),
    "a convolution": (
        DIFFUSERS,
        put(f"{Q}.lora_B.weight", torch.zeros(160, RANK, 1, 1)),
        rf"{Q}: \(160, 4, 1, 1\) x \(4, 160\) is no product",
    ),
    "factors that are not finite": (
        DIFFUSERS,
        put(f"{Q}.lora_A.weight", torch.full((RANK, 160), float("inf"))),
        rf"{Q}: its factors are not all finite numbers",
    ),
    "a layer under two names": (
        DIFFUSERS,
        lambda tensors: tensors.update(
            {
                f"{QKV}.lora_down.weight": torch.zeros(RANK, 160),
                f"{QKV}.lora_up.weight": torch.zeros(480, RANK),
            }
        ),
        r"changes transformer\.transformer_blocks\.0\.attn\.to_[qkv] too",
    ),
    "a half under two names": (
        DIFFUSERS,
        put(f"{Q}.lora_down.weight", torch.zeros(RANK, 160)),
        rf"there is another down of {Q}",
    ),
    "DoRA": (DIFFUSERS, put(f"{Q}.dora_scale", torch.ones(160)), r"DoRA cannot be fused: 1 keys"),
    "PEFT's DoRA": (
        DIFFUSERS,
        put(f"{Q}.lora_magnitude_vector", torch.ones(160)),
        rf"DoRA cannot be fused: 1 keys such as {Q}\.lora_magnitude_vector",
    ),
    "LoKr": (KOHYA, put(f"{QKV}.lokr_w1", torch.ones(4, 4)), r"LoKr cannot be fused"),
    "LoHa": (KOHYA, put(f"{QKV}.hada_w1_a", torch.ones(4, 4)), r"LoHa cannot be fused"),
    "OFT": (KOHYA, put(f"{QKV}.oft_blocks", torch.ones(4, 4)), r"OFT cannot be fused"),
    "LoCon": (KOHYA, put(f"{QKV}.lora_mid.weight", torch.ones(4, 4)), r"LoCon with a middle"),
    "whole differences": (
        KOHYA,
        put("diffusion_model.img_in.diff_b", torch.ones(160)),
        r"whole differences of weights cannot be fused",
    ),
    "biases": (
        DIFFUSERS,
        put(f"{Q}.lora_B.bias", torch.ones(160)),
        r"biases of the factors cannot be fused",
    ),
    "a control LoRA": (
        LAYOUTS["BFL"],
        put("double_blocks.0.img_attn.norm.query_norm.scale", torch.ones(32)),
        r"normalization layers cannot be fused",
    ),
    "a LoRA of another model": (
        KOHYA,
        sdxl,
        r"lora_unet_down_blocks_1_to_q: the network has no such layer",
    ),
    "nothing": (KOHYA, lambda tensors: tensors.clear(), r"it holds no tensor"),
    "no alpha where the metadata has words": (
        replace(LAYOUTS["ai-toolkit"], metadata={"transformer.lora_alpha": "16"}),
        lambda tensors: None,
        r"transformer\.proj_out: alpha is '16', not a number",
    ),
    "two alphas": (
        replace(DIFFUSERS, metadata={"transformer.lora_alpha": 16}),
        lambda tensors: None,
        r"transformer\.proj_out: alpha is 3 in its key and 16 in the metadata",
    ),
    "DoRA in the metadata": (
        replace(
            LAYOUTS["ai-toolkit"],
            metadata={"transformer.lora_alpha": 16, "transformer.use_dora": True},
        ),
        lambda tensors: None,
        r"DoRA cannot be fused: the metadata says use_dora",
    ),
    "PEFT's file without its configuration": (
        replace(LAYOUTS["PEFT"], config={}),
        lambda tensors: None,
        r"alpha is unknown: adapter_config\.json is not beside it",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_named_and_no_weight_changes(
    network: InstantCharacter, tmp_path: Path, defect: str
) -> None:
    layout, change, says = DEFECTS[defect]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tensors = layout.tensors(before)
    change(tensors)
    good = LAYOUTS["ai-toolkit"]
    (tmp_path / "good").mkdir()
    paths = [
        good.save(good.tensors(before), tmp_path / "good"),
        layout.save(tensors, tmp_path),
    ]
    fusing = FusedNetwork(network)
    with pytest.raises(ExportError, match=says) as caught:
        fusing.apply([Lora(path) for path in paths])
    message = str(caught.value)
    assert message.startswith(f"{paths[1]} does not fit 'micro', so nothing was fused:")
    assert "Take a LoRA that was trained for this network" in message
    assert len(message.splitlines()) <= 25
    assert all(torch.equal(before[key], now) for key, now in network.state_dict().items())


def test_a_file_that_is_no_safetensors_file_is_refused(
    network: InstantCharacter, tmp_path: Path
) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ExportError, match="cannot be read as a LoRA"):
        FusedNetwork(network).apply([Lora(tmp_path / "x.safetensors")])


def test_metadata_that_is_no_json_is_refused(network: InstantCharacter, tmp_path: Path) -> None:
    tensors = LAYOUTS["ai-toolkit"].tensors(network.state_dict())
    save_file(tensors, tmp_path / "x.safetensors", {"lora_adapter_metadata": "{"})
    with pytest.raises(ExportError, match="PEFT's configuration is no JSON"):
        FusedNetwork(network).apply([Lora(tmp_path / "x.safetensors")])
    save_file(tensors, tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps([1])})
    with pytest.raises(ExportError, match="PEFT's configuration is no object"):
        FusedNetwork(network).apply([Lora(tmp_path / "x.safetensors")])
