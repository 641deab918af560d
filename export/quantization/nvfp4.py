"""NVFP4 linear layers: blocks of 16 values in FP4 (E2M1), each with an FP8 scale.

Weights are rounded here, inputs as they come: TensorRT's one plugin node finds the scale of every
block of inputs. One more scale, in fp32, brings the blocks' scales into FP8's range. Everything
else is standard ONNX. What loses too much in four bits, and attention, is FP8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import onnxscript
import torch
from onnx import TensorProto
from torch import Tensor, nn

from castmate.engines.manifest import ScaleLayout
from castmate.engines.plan import Flavour
from export.precision import Precision, QuantizedLayer
from export.quantization.four_bits import E2M1, pack, typed, unpack
from export.quantization.fp8 import E4M3_MAX, FP8_ATTENTION
from export.quantization.scheme import Kernel, Measure, Ranges, Scheme, Translations

BLOCK = 16
E2M1_MAX = E2M1[-1]
LARGEST_VALUES = (6.0, 4.0)
"""Values that the largest weight of a block may become: the better one is taken. Above 4 FP4's
steps are 2 wide."""

PRODUCTS = Kernel(
    name="FP4 arithmetic",
    attention=False,
    stored=TensorProto.FLOAT4E2M1,
    datatype="FP4E2M1",
    targets={
        Flavour.TENSORRT: ("10.0", "10.3", "12.0", "12.1"),
        Flavour.TENSORRT_RTX: ("12.0", "12.1"),
    },
    operands=2,
)


@torch.library.custom_op("castmate::nvfp4_quantize_dequantize", mutates_args=())
def quantize_dequantize(x: Tensor, scale: Tensor) -> Tensor:
    """Round `[..., in]` to FP4, with a scale of its own for each block, and back to fp32.

    Args:
        x: Any float.
        scale: fp32, of the scales of the blocks.
    """
    blocks = x.float().unflatten(-1, (-1, BLOCK))
    rough = blocks.abs().amax(-1, keepdim=True) / (scale * E2M1_MAX)
    wide = rough.clamp(max=E4M3_MAX).to(torch.float8_e4m3fn).float() * scale
    return (_to_e2m1(_divided(blocks, wide)) * wide).flatten(-2)


@torch.library.custom_op("castmate::nvfp4_dequantize", mutates_args=())
def dequantize(packed: Tensor, block_scale: Tensor, scale: Tensor) -> Tensor:
    """An FP4 matrix `[in, out]`, two values a byte, in fp32."""
    codes = unpack(packed).long()
    values = torch.tensor([*E2M1, *(-value for value in E2M1)], device=packed.device)[codes]
    wide = block_scale.float() * scale
    return (values.unflatten(0, (-1, BLOCK)) * wide.unsqueeze(1)).flatten(0, 1)


@quantize_dequantize.register_fake
def _(x: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)


@dequantize.register_fake
def _(packed: Tensor, block_scale: Tensor, scale: Tensor) -> Tensor:
    return packed.new_empty((packed.shape[0], 2 * packed.shape[1]), dtype=torch.float32)


op: Any = onnxscript.opset23
PLUGIN, PLUGIN_DOMAIN = "TRT_FP4DynamicQuantize", "trt"
_Parameter, _Attribute = onnx.defs.OpSchema.FormalParameter, onnx.defs.OpSchema.Attribute
_SCHEMA = onnx.defs.OpSchema(
    PLUGIN,
    PLUGIN_DOMAIN,
    1,
    inputs=[_Parameter("x", "T"), _Parameter("scale", "tensor(float)")],
    outputs=[
        _Parameter("values", "tensor(float4e2m1)"),
        _Parameter("block_scales", "tensor(float8e4m3fn)"),
    ],
    type_constraints=[("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], "")],
    attributes=[
        _Attribute(name, onnx.defs.OpSchema.AttrType.INT, required=True)
        for name in ("axis", "block_size", "scale_type")
    ],
)


def _export_quantize_dequantize(x: Any, scale: Any) -> Any:
    opset = onnxscript.values.Opset(PLUGIN_DOMAIN, 1)
    quantize = onnxscript.values.Op(opset, PLUGIN, _SCHEMA)
    kind = TensorProto.FLOAT8E4M3FN
    values, block_scales = quantize(x, scale, axis=-1, block_size=BLOCK, scale_type=kind)
    wide = op.DequantizeLinear(block_scales, scale)
    return op.DequantizeLinear(values, wide, axis=-1, block_size=BLOCK)


def _export_dequantize(packed: Any, block_scale: Any, scale: Any) -> Any:
    values = typed(packed, TensorProto.FLOAT4E2M1)
    wide = op.DequantizeLinear(block_scale, scale)
    return op.DequantizeLinear(values, wide, axis=0, block_size=BLOCK)


def _write_out_quantize_dequantize(x: Any, scale: Any) -> Any:
    """In operators that ONNX Runtime has on a CPU."""
    fp8 = op.Constant(value=onnx.helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0]))

    def number(value: float) -> Any:
        return op.Constant(value_float=value)

    kept = [0] * (len(x.shape) - 1)
    blocks = op.Reshape(x, op.Constant(value_ints=[*kept, -1, BLOCK]))
    largest = op.ReduceMax(op.Abs(blocks), op.Constant(value_ints=[-1]), keepdims=1)
    rough = op.Min(op.Div(largest, op.Mul(scale, number(E2M1_MAX))), number(E4M3_MAX))
    one = number(1.0)
    wide = op.Mul(op.DequantizeLinear(op.QuantizeLinear(rough, one, fp8), one, fp8), scale)
    divisor = op.Where(op.Equal(wide, number(0.0)), one, wide)
    values = op.Clip(op.Div(blocks, divisor), number(-E2M1_MAX), number(E2M1_MAX))
    size = op.Abs(values)
    coarse = op.Where(op.Less(size, number(4.0)), one, number(2.0))
    step = op.Where(op.Less(size, number(2.0)), number(0.5), coarse)
    rounded = op.Mul(op.Mul(op.Round(op.Div(values, step)), step), wide)
    return op.Reshape(rounded, op.Constant(value_ints=[*kept, -1]))


def _write_out_dequantize(packed: Any, block_scale: Any, scale: Any) -> Any:
    """With an exact twin of the weights: whole numbers, twice as large, and half the scale."""
    doubled = typed(packed, TensorProto.INT8)
    half = op.Mul(scale, op.Constant(value_float=0.5))
    wide = op.DequantizeLinear(block_scale, half)
    return op.DequantizeLinear(doubled, wide, axis=0, block_size=BLOCK)


_TRANSLATIONS: Translations = {
    torch.ops.castmate.nvfp4_quantize_dequantize.default: _export_quantize_dequantize,
    torch.ops.castmate.nvfp4_dequantize.default: _export_dequantize,
}
_CPU_TRANSLATIONS: Translations = {
    torch.ops.castmate.nvfp4_quantize_dequantize.default: _write_out_quantize_dequantize,
    torch.ops.castmate.nvfp4_dequantize.default: _write_out_dequantize,
}


class NvFp4Linear(QuantizedLayer):
    """`y = x W + b` with inputs and weights in FP4; the weight is `[in, out / 2]` bytes."""

    keeps_dtype = ("block_scale", "weight_scale", "input_scale")

    weight: Tensor
    block_scale: Tensor
    weight_scale: Tensor
    input_scale: Tensor

    def __init__(self, linear: nn.Linear, input_amax: float) -> None:
        """Quantize a layer.

        Args:
            linear: The layer; its weight is read, not kept.
            input_amax: Largest magnitude seen at its input.
        """
        super().__init__()
        blocks = linear.weight.detach().T.float().unflatten(0, (-1, BLOCK))
        scale = _scale(blocks.abs().max())
        block_scale = best_scale(blocks, scale)
        values = _to_e2m1(_divided(blocks, block_scale.float() * scale)).flatten(0, 1)
        codes = torch.bucketize(values.abs().contiguous(), values.new_tensor(E2M1))
        self.register_buffer("weight", pack(codes + 8 * (values < 0)))
        self.register_buffer("block_scale", block_scale.squeeze(1).contiguous())
        self.register_buffer("weight_scale", scale)
        self.register_buffer("input_scale", _scale(torch.tensor(input_amax)).to(scale.device))
        self.bias: Tensor | None = linear.bias  # torch's stubs know no layer without

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        weight = dequantize(self.weight, self.block_scale, self.weight_scale).to(x.dtype)
        y = quantize_dequantize(x, self.input_scale).to(x.dtype) @ weight
        return y if self.bias is None else y + self.bias


def best_scale(blocks: Tensor, scale: Tensor) -> Tensor:
    """The FP8 scale of each block of weights with the least squared error.

    Args:
        blocks: `[blocks, 16, out]`, fp32.
        scale: Of the scales.
    """
    amax = blocks.abs().amax(1, keepdim=True)
    best = torch.zeros_like(amax, dtype=torch.float8_e4m3fn)
    least = torch.full_like(amax, torch.inf)
    for largest in LARGEST_VALUES:
        found = (amax / (scale * largest)).clamp(max=E4M3_MAX).to(torch.float8_e4m3fn)
        wide = found.float() * scale
        error = _to_e2m1(_divided(blocks, wide)).mul(wide).sub(blocks).square().sum(1, keepdim=True)
        # torch.where has no FP8
        best = torch.where(error < least, found.float(), best.float()).to(found.dtype)
        least = torch.minimum(error, least)
    return best


class NvFp4(Scheme):
    """Linear layers in FP4, attention and sensitive layers in FP8."""

    name = "nvfp4"
    kernels = (PRODUCTS, *FP8_ATTENTION.kernels)
    weight_bytes = 0.5 + 1 / BLOCK
    build_memory = 3.4
    psnr_db: Mapping[Precision, float] = {Precision.FP32: 14, Precision.BF16: 14}
    translations = _TRANSLATIONS
    cpu_translations = _CPU_TRANSLATIONS
    layout = ScaleLayout(
        weights="float4e2m1",
        scales="float8e4m3fn for each block, times one in float32",
        block=BLOCK,
        inputs="float4e2m1",
        input_scales="float8e4m3fn for each block, found as it runs, times one, calibrated",
    )
    gains = ("10.0", "10.3", "12.0", "12.1")

    @property
    def wider(self) -> Scheme:
        """FP8, which the same GPUs have."""
        return FP8_ATTENTION

    def replaces(self, layer: nn.Module) -> bool:
        """Linear layers of whole blocks, and attentions."""
        if isinstance(layer, nn.Linear):
            return layer.in_features % BLOCK == 0 and layer.out_features % BLOCK == 0
        return FP8_ATTENTION.replaces(layer)

    def ranges(self, name: str, layer: nn.Module) -> Mapping[str, Measure]:
        """Those of FP8."""
        return FP8_ATTENTION.ranges(name, layer)

    def counterpart(self, module: nn.Module, name: str, ranges: Ranges) -> nn.Module:
        """`NvFp4Linear`, or FP8's attention."""
        layer = module.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            return FP8_ATTENTION.counterpart(module, name, ranges)
        (key,) = self.ranges(name, layer)
        return NvFp4Linear(layer, ranges[key].item())


NVFP4 = NvFp4()


def _to_e2m1(values: Tensor) -> Tensor:
    """The nearest values of FP4; of two as near, the one with the even code."""
    values = values.clamp(-E2M1_MAX, E2M1_MAX)
    size = values.abs()
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return (values / step).round() * step


def _divided(blocks: Tensor, scale: Tensor) -> Tensor:
    """A block whose scale is too small for FP8 is 0."""
    return blocks / torch.where(scale == 0, 1.0, scale)


def _scale(amax: Tensor) -> Tensor:
    """Of the blocks' scales, so that the largest is FP8's largest."""
    return (amax.float() / (E2M1_MAX * E4M3_MAX)).clamp(min=torch.finfo(torch.float32).tiny)
