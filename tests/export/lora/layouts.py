"""LoRA files as each program writes them, made from the definition of its layout.

A layout is a list of layers in its own naming with the weight that each one changes, and what the
keys of its file are called. Weights are compared in the naming of the layout, so that nothing here
knows how Castmate finds a layer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

Weights = Mapping[str, Tensor]

RANK, ALPHA = 4, 3.0


def diffusers_names(state: Weights) -> dict[str, Tensor]:
    """The matrices of a transformer, as diffusers and ai-toolkit call them."""
    return {
        name.removeprefix("transformer.").removesuffix(".weight"): weight
        for name, weight in state.items()
        if name.startswith("transformer.") and name.endswith(".weight") and weight.ndim == 2
        if ".processor." not in name
    }


def bfl_names(state: Weights) -> dict[str, Tensor]:
    """The same weights as Black Forest Labs published them: merged, and the last ones swapped."""
    names = diffusers_names(state)
    found: dict[str, Tensor] = {}

    def merged(*parts: str) -> Tensor:
        return torch.cat([names[part] for part in parts])

    doubles = {name.split(".")[1] for name in names if name.startswith("transformer_blocks.")}
    for i in sorted(doubles):
        theirs, ours = f"double_blocks.{i}", f"transformer_blocks.{i}"
        for side, qkv, out, mlp, norm in (
            ("img", ("to_q", "to_k", "to_v"), "to_out.0", "ff", "norm1"),
            (
                "txt",
                ("add_q_proj", "add_k_proj", "add_v_proj"),
                "to_add_out",
                "ff_context",
                "norm1_context",
            ),
        ):
            found |= {
                f"{theirs}.{side}_attn.qkv": merged(*(f"{ours}.attn.{part}" for part in qkv)),
                f"{theirs}.{side}_attn.proj": names[f"{ours}.attn.{out}"],
                f"{theirs}.{side}_mlp.0": names[f"{ours}.{mlp}.net.0.proj"],
                f"{theirs}.{side}_mlp.2": names[f"{ours}.{mlp}.net.2"],
                f"{theirs}.{side}_mod.lin": names[f"{ours}.{norm}.linear"],
            }
    singles = {name.split(".")[1] for name in names if name.startswith("single_transformer")}
    for i in sorted(singles):
        theirs, ours = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        parts = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        found |= {
            f"{theirs}.linear1": merged(*(f"{ours}.{part}" for part in parts)),
            f"{theirs}.linear2": names[f"{ours}.proj_out"],
            f"{theirs}.modulation.lin": names[f"{ours}.norm.linear"],
        }
    scale, shift = names["norm_out.linear"].chunk(2)
    return found | {
        "img_in": names["x_embedder"],
        "txt_in": names["context_embedder"],
        "time_in.in_layer": names["time_text_embed.timestep_embedder.linear_1"],
        "time_in.out_layer": names["time_text_embed.timestep_embedder.linear_2"],
        "vector_in.in_layer": names["time_text_embed.text_embedder.linear_1"],
        "vector_in.out_layer": names["time_text_embed.text_embedder.linear_2"],
        "guidance_in.in_layer": names["time_text_embed.guidance_embedder.linear_1"],
        "guidance_in.out_layer": names["time_text_embed.guidance_embedder.linear_2"],
        "final_layer.linear": names["proj_out"],
        "final_layer.adaLN_modulation.1": torch.cat([shift, scale]),
    }


def xlabs_names(state: Weights) -> dict[str, Tensor]:
    """What XLabs trains: attention alone, named after its processors."""
    found: dict[str, Tensor] = {}
    for name, weight in bfl_names(state).items():
        block, _, layer = name.partition("_attn.")
        if layer:
            index = {"img": 1, "txt": 2}[block.rpartition(".")[2]]
            found[f"{block.rpartition('.')[0]}.processor.{layer}_lora{index}"] = weight
        elif name.endswith(".linear1"):
            width = weight.shape[1]
            found[f"{name.removesuffix('.linear1')}.processor.qkv_lora"] = weight[: 3 * width]
        elif name.endswith(".linear2"):
            found[f"{name.removesuffix('.linear2')}.processor.proj_lora"] = weight
    return found


def clip_names(state: Weights) -> dict[str, Tensor]:
    """The linear layers of CLIP's text encoder, as OpenAI's port calls them."""
    return {
        f"text_model.{name.removeprefix('text_encoder.').removesuffix('.weight')}": weight
        for name, weight in state.items()
        if name.startswith("text_encoder.encoder.") and name.endswith(".weight")
        if weight.ndim == 2
    }


def t5_names(state: Weights) -> dict[str, Tensor]:
    """The linear layers of T5."""
    return {
        name.removeprefix("text_encoder_2.").removesuffix(".weight"): weight
        for name, weight in state.items()
        if name.startswith("text_encoder_2.encoder.block.") and name.endswith(".weight")
        if weight.ndim == 2 and "relative_attention_bias" not in name
    }


def underscored(prefix: str) -> Callable[[str], str]:
    """Names as kohya's scripts write them."""
    return lambda name: f"{prefix}_{name.replace('.', '_')}"


def dotted(prefix: str) -> Callable[[str], str]:
    """Names behind a prefix."""
    return lambda name: f"{prefix}.{name}" if prefix else name


@dataclass(frozen=True)
class Layout:
    """How one program writes a LoRA.

    Attributes:
        parts: For each component that it trains: its weights by their names in this layout, and
            how a name begins a key.
        down: How `A` is called.
        up: How `B` is called.
        alpha_keys: Alpha stands in keys.
        metadata: Alpha stands in the file's header.
        config: Alpha stands in a file beside it.
        file: The name of the file.
    """

    parts: tuple[tuple[Callable[[Weights], dict[str, Tensor]], Callable[[str], str]], ...]
    down: str = "lora_A.weight"
    up: str = "lora_B.weight"
    alpha_keys: bool = False
    metadata: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    file: str = "style.safetensors"

    @property
    def scaling(self) -> float:
        """Alpha over rank as the file says it."""
        return ALPHA / RANK if self.alpha_keys or self.metadata or self.config else 1.0

    def weights(self, state: Weights) -> dict[str, Tensor]:
        """What it can change, by the beginnings of its keys."""
        return {
            key(name): weight for names, key in self.parts for name, weight in names(state).items()
        }

    def tensors(self, state: Weights) -> dict[str, Tensor]:
        """A file's random tensors, for every layer that the layout knows."""
        made = torch.Generator().manual_seed(9)
        found: dict[str, Tensor] = {}
        for name, weight in self.weights(state).items():
            rows, columns = weight.shape
            found[f"{name}.{self.down}"] = torch.randn(RANK, columns, generator=made)
            found[f"{name}.{self.up}"] = torch.randn(rows, RANK, generator=made)
            if self.alpha_keys:
                found[f"{name}.alpha"] = torch.tensor(ALPHA)
        return found

    def save(self, tensors: Weights, folder: Path) -> Path:
        """Write a file, and what belongs beside it."""
        header = {"format": "pt"}
        if self.metadata:
            header["lora_adapter_metadata"] = json.dumps(self.metadata)
        if self.config:
            (folder / "adapter_config.json").write_text(json.dumps(self.config))
        save_file(dict(tensors), folder / self.file, header)
        return folder / self.file

    def fused(self, state: Weights, tensors: Weights, scale: float) -> dict[str, Tensor]:
        """The definition: `W + scale * alpha / rank * B @ A`."""
        return {
            name: weight
            + scale * self.scaling * (tensors[f"{name}.{self.up}"] @ tensors[f"{name}.{self.down}"])
            for name, weight in self.weights(state).items()
        }


_TRANSFORMER = (diffusers_names, dotted("transformer"))
_CLIP = (clip_names, dotted("text_encoders.clip_l.transformer"))
_KOHYA: dict[str, Any] = {"down": "lora_down.weight", "up": "lora_up.weight"}

LAYOUTS = {
    "diffusers, alpha in its metadata": Layout(
        (_TRANSFORMER, (clip_names, dotted("text_encoder")), (t5_names, dotted("text_encoder_2"))),
        metadata={
            f"{component}.{name}": value
            for component in ("transformer", "text_encoder", "text_encoder_2")
            for name, value in {"r": RANK, "lora_alpha": 99, "use_rslora": False}.items()
        }
        | {f"{part}.alpha_pattern": {r"[\w.]+": ALPHA} for part in ("transformer", "text_encoder")}
        | {"text_encoder_2.lora_alpha": ALPHA},
    ),
    "diffusers, alpha in keys": Layout((_TRANSFORMER,), alpha_keys=True),
    "diffusers, one model": Layout(
        ((diffusers_names, dotted("")),), metadata={"r": RANK, "lora_alpha": ALPHA}
    ),
    "diffusers, before PEFT": Layout(
        ((clip_names, dotted("text_encoder")),),
        down="lora_linear_layer.down.weight",
        up="lora_linear_layer.up.weight",
    ),
    "ai-toolkit": Layout((_TRANSFORMER,)),
    "PEFT": Layout(
        ((diffusers_names, dotted("base_model.model")),),
        config={"r": RANK, "lora_alpha": ALPHA, "alpha_pattern": {}, "use_dora": False},
        file="adapter_model.safetensors",
    ),
    "PEFT under BFL's names": Layout(((bfl_names, dotted("base_model.model")),)),
    "kohya": Layout(
        (
            (bfl_names, underscored("lora_unet")),
            (clip_names, underscored("lora_te1")),
            (t5_names, underscored("lora_te3")),
        ),
        alpha_keys=True,
        **_KOHYA,
    ),
    "kohya, on diffusers' names": Layout(
        ((diffusers_names, underscored("lora_transformer")),), alpha_keys=True, **_KOHYA
    ),
    "ComfyUI": Layout(((bfl_names, dotted("diffusion_model")), _CLIP)),
    "ComfyUI, kohya's factors": Layout(
        ((bfl_names, dotted("diffusion_model")), _CLIP), alpha_keys=True, **_KOHYA
    ),
    "BFL": Layout(((bfl_names, dotted("")),)),
    "XLabs": Layout(((xlabs_names, dotted("")),), down="down.weight", up="up.weight"),
    "XLabs in ComfyUI": Layout(
        ((xlabs_names, dotted("diffusion_model")),), down="down.weight", up="up.weight"
    ),
}
