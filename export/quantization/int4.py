"""INT4 weights (W4A16) for small cards: groups of an output's weights share a scale.

Inputs and arithmetic stay as they are: TensorRT widens the weights inside its product. So a layer
takes a quarter of the memory of bf16 and is as fast or slow as what reads its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxscript
import torch
from onnx import TensorProto
from torch import Tensor, nn

from castmate.engines.manifest import ScaleLayout
from castmate.engines.plan import Flavour
from export.precision import Precision, QuantizedLayer
from export.quantization.four_bits import pack, typed, unpack
from export.quantization.int8 import INT8
from export.quantization.scheme import Kernel, Measure, Ranges, Scheme, Translations

GROUP = 128
"""Weights of one output that share a scale; fewer where a layer's inputs are no multiple of it."""
SMALLEST_GROUP = 16
LARGEST = 7
CLIPPED = (1.0, 0.92, 0.84, 0.76, 0.68)
"""Parts of a group's largest weight that its scale may end at: the best of them is taken."""

_EVERY = ("8.0", "8.6", "8.9", "12.0", "12.1")
PRODUCTS = Kernel(
    name="products with INT4 weights",
    attention=False,
    stored=TensorProto.INT4,
    datatype="Int4",
    targets={
        Flavour.TENSORRT: ("8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1"),
        Flavour.TENSORRT_RTX: _EVERY,
    },
)


@torch.library.custom_op("castmate::int4_dequantize", mutates_args=())
def dequantize(packed: Tensor, scale: Tensor) -> Tensor:
    """An INT4 matrix `[in, out]`, two values a byte, times the scales `[groups, out]`."""
    codes = unpack(packed).to(torch.int8)
    values = torch.where(codes > LARGEST, codes - 16, codes)
    grouped = values.unflatten(0, (len(scale), -1)).float() * scale.float().unsqueeze(1)
    return grouped.flatten(0, 1).to(scale.dtype)


@dequantize.register_fake
def _(packed: Tensor, scale: Tensor) -> Tensor:
    return packed.new_empty((packed.shape[0], 2 * packed.shape[1]), dtype=scale.dtype)


op: Any = onnxscript.opset23


def _export_dequantize(packed: Any, scale: Any) -> Any:
    values = typed(packed, TensorProto.INT4)
    group = packed.shape[0] // scale.shape[0]
    return op.DequantizeLinear(values, scale, axis=0, block_size=group)


_TRANSLATIONS: Translations = {torch.ops.castmate.int4_dequantize.default: _export_dequantize}


class Int4Linear(QuantizedLayer):
    """`y = x W + b` with weights of four bits, `[in, out / 2]` bytes."""

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        """Quantize a layer; its weight is read, not kept."""
        super().__init__()
        like = linear.weight.detach()
        grouped = like.T.float().unflatten(0, (-1, group_of(linear.in_features)))
        scale = best_scale(grouped, like.dtype)
        codes = _rounded(grouped, scale).to(torch.int8).flatten(0, 1)
        self.register_buffer("weight", pack(codes & 15))
        self.register_buffer("weight_scale", scale.squeeze(1).to(like.dtype).contiguous())
        self.bias: Tensor | None = linear.bias  # torch's stubs know no layer without

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        y = x @ dequantize(self.weight, self.weight_scale)
        return y if self.bias is None else y + self.bias


def group_of(in_features: int) -> int:
    """The largest group of which a layer's inputs make several; 0 where none does.

    With one group alone, TensorRT widens the weights in a kernel of its own.
    """
    sizes = (GROUP >> step for step in range(8))
    several = (g for g in sizes if in_features % g == 0 and in_features > g)
    return next((g for g in several if g >= SMALLEST_GROUP), 0)


def best_scale(grouped: Tensor, dtype: torch.dtype) -> Tensor:
    """The scale of each group with the least squared error, as it is stored.

    Args:
        grouped: `[groups, weights of one, out]`, fp32.
        dtype: That scales are stored in.
    """
    amax = grouped.abs().amax(1, keepdim=True)
    best, least = torch.empty_like(amax), torch.full_like(amax, torch.inf)
    for part in CLIPPED:
        scale = (amax * part / LARGEST).clamp(min=torch.finfo(dtype).smallest_normal)
        scale = scale.to(dtype).float()
        error = (_rounded(grouped, scale) * scale - grouped).square().sum(1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


class Int4(Scheme):
    """Linear layers with INT4 weights; sensitive ones are INT8."""

    name = "int4"
    kernels = (PRODUCTS, *INT8.kernels)
    weight_bytes = 0.5 + 2 / GROUP
    psnr_db: Mapping[Precision, float] = {Precision.FP32: 15, Precision.BF16: 15}
    translations = _TRANSLATIONS
    layout = ScaleLayout(weights="int4", scales="one for each block", block=GROUP)
    gains = ("8.0", "8.6", "8.9")

    @property
    def wider(self) -> Scheme:
        """INT8, which the same GPUs have."""
        return INT8

    def replaces(self, layer: nn.Module) -> bool:
        """Linear layers whose inputs fall into groups, with an even number of outputs."""
        return (
            isinstance(layer, nn.Linear)
            and group_of(layer.in_features) > 0
            and layer.out_features % 2 == 0
        )

    def ranges(self, name: str, layer: nn.Module) -> Mapping[str, Measure]:
        """None: only weights are rounded."""
        return {}

    def counterpart(self, module: nn.Module, name: str, ranges: Ranges) -> nn.Module:
        """`Int4Linear`."""
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        return Int4Linear(layer)


INT4 = Int4()


def _rounded(grouped: Tensor, scale: Tensor) -> Tensor:
    return (grouped / scale).round().clamp(-LARGEST - 1, LARGEST)
