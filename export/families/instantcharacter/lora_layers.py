"""What the layers of FLUX are called in LoRA files, in every layout that is common.

diffusers and what follows it (PEFT, ai-toolkit) name the network's own layers. BFL's names
(ComfyUI, kohya, XLabs) know one layer where diffusers has three or four: rows of such a file belong
to these layers one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from torch import nn

from export.families.instantcharacter.config import GUIDANCE_EMBEDDER
from export.families.instantcharacter.network import InstantCharacter
from export.family import LoraLayers, LoraRows

_DOUBLE: Final = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
}
_SINGLE: Final = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}
_OUTSIDE: Final = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
_XLABS_DOUBLE: Final = {
    "processor.qkv_lora1": _DOUBLE["img_attn.qkv"],
    "processor.proj_lora1": _DOUBLE["img_attn.proj"],
    "processor.qkv_lora2": _DOUBLE["txt_attn.qkv"],
    "processor.proj_lora2": _DOUBLE["txt_attn.proj"],
}
_XLABS_SINGLE: Final = {
    "processor.qkv_lora": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "processor.proj_lora": ("proj_out",),
}
_DIFFUSERS: Final = ("transformer.{}", "{}", "base_model.model.{}", "lora_transformer_{_}")
_BFL: Final = ("diffusion_model.{}", "{}", "base_model.model.{}", "lora_unet_{_}")
_XLABS: Final = ("{}", "diffusion_model.{}")
_ENCODERS: Final = {
    "text_encoder": (
        "text_encoder.{}",
        "text_encoder.text_model.{}",
        "text_encoders.clip_l.transformer.text_model.{}",
        "lora_te1_text_model_{_}",
        "lora_te_text_model_{_}",
    ),
    "text_encoder_2": (
        "text_encoder_2.{}",
        "text_encoders.t5xxl.transformer.{}",
        "lora_te3_{_}",
    ),
}


def lora_layers(network: InstantCharacter) -> LoraLayers:
    """The rows of this network's layers that each name in a LoRA file stands for."""
    layers = {
        name: layer.out_features
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear)
        and (network.config.has_guidance or GUIDANCE_EMBEDDER not in name)
    }
    found: dict[str, tuple[LoraRows, ...]] = {}

    def add(patterns: Sequence[str], name: str, rows: Sequence[LoraRows]) -> None:
        for pattern in patterns:
            found[_filled(pattern, name)] = tuple(rows)

    def whole(*names: str) -> list[LoraRows]:
        return [LoraRows(name, 0, layers[name]) for name in names]

    for name in layers:
        component, _, layer = name.partition(".")
        if component == "transformer":
            add(_DIFFUSERS, layer, whole(name))
        elif component in _ENCODERS:
            add(_ENCODERS[component], layer, whole(name))
    for patterns, double, single in (
        (_BFL, _DOUBLE, _SINGLE),
        (_XLABS, _XLABS_DOUBLE, _XLABS_SINGLE),
    ):
        for block, inside in _blocks(network):
            table = double if block.startswith("double") else single
            for name, parts in table.items():
                add(patterns, f"{block}.{name}", whole(*(f"{inside}.{part}" for part in parts)))
    for name, layer in _OUTSIDE.items():
        if f"transformer.{layer}" in layers:
            add(_BFL, name, whole(f"transformer.{layer}"))
    # BFL's final modulation is shift, then scale; diffusers has them the other way round.
    last, half = "transformer.norm_out.linear", layers["transformer.norm_out.linear"] // 2
    swapped = [LoraRows(last, half, half), LoraRows(last, 0, half)]
    add(_BFL, "final_layer.adaLN_modulation.1", swapped)
    return found


def _blocks(network: InstantCharacter) -> Iterator[tuple[str, str]]:
    """BFL's name of every block, and the network's."""
    transformer = network.transformer
    for index, _ in enumerate(transformer.transformer_blocks):
        yield f"double_blocks.{index}", f"transformer.transformer_blocks.{index}"
    for index, _ in enumerate(transformer.single_transformer_blocks):
        yield f"single_blocks.{index}", f"transformer.single_transformer_blocks.{index}"


def _filled(pattern: str, name: str) -> str:
    """A pattern with a name in it; `{_}` takes the name as kohya writes it."""
    return pattern.replace("{}", name).replace("{_}", name.replace(".", "_"))
