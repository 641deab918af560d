"""INT8 linear layers (W8A8) for GPUs without FP8: one scale an output, one for all inputs.

One calibrated scale for all inputs is what TensorRT multiplies with in INT8. It is set by the
widest channel, and the others lose what that one takes. SmoothQuant moves part of a wide channel
into the weights: `x / s` times `s W` is the same product.
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
from export.quantization import per_output
from export.quantization.per_output import dequantize, stored_scale
from export.quantization.scheme import Kernel, Measure, Ranges, Scheme, Translations

LARGEST = 127
STRENGTHS = (0.0, 0.25, 0.5, 0.65, 0.8)
"""How much of a channel's width moves into the weights; with 0 nothing does."""
PEAK_TO_RMS = 6.0
"""Of a channel's inputs, where its error is predicted: they are far from evenly spread."""

PRODUCTS = Kernel(
    name="INT8 arithmetic",
    attention=False,
    stored=TensorProto.INT8,
    datatype="Int8",
    targets={
        Flavour.TENSORRT: ("8.0", "8.6", "8.9", "9.0"),
        Flavour.TENSORRT_RTX: ("8.0", "8.6", "8.9", "12.0", "12.1"),
    },
    operands=2,
)


@torch.library.custom_op("castmate::int8_quantize_dequantize", mutates_args=())
def quantize_dequantize(x: Tensor, scale: Tensor) -> Tensor:
    """Round `x` to INT8 with one scale for the tensor, and back."""
    wide = (x.float() / scale.float()).round().clamp(-LARGEST - 1, LARGEST)
    return (wide * scale.float()).to(x.dtype)


@quantize_dequantize.register_fake
def _(x: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(x)


op: Any = onnxscript.opset23


def _export_quantize_dequantize(x: Any, scale: Any) -> Any:
    # Without a zero point: ONNX Runtime 1.32 moves such a pair past a Reshape with one of UINT8.
    rounded = op.QuantizeLinear(x, scale, output_dtype=TensorProto.INT8)
    return op.DequantizeLinear(rounded, scale)


_TRANSLATIONS: Translations = {
    torch.ops.castmate.int8_quantize_dequantize.default: _export_quantize_dequantize,
    **per_output.TRANSLATIONS,
}


class Int8Linear(QuantizedLayer):
    """`y = (x / s) (s W) + b` with INT8 inputs of one scale, and weights with one an output.

    Attributes:
        smoothing: `1 / s` of each input, or None where nothing is moved.
    """

    keeps_dtype = ("weight",)

    weight: Tensor
    weight_scale: Tensor
    input_scale: Tensor
    smoothing: Tensor | None

    def __init__(self, linear: nn.Linear, channels: Tensor) -> None:
        """Quantize a layer.

        Args:
            linear: The layer; its weight is read, not kept.
            channels: Largest magnitude seen of each of its inputs.
        """
        super().__init__()
        like = linear.weight.detach()
        wide, channels = like.float(), channels.to(like.device).float()
        factors = smoothing(wide, channels)
        inverse = None if factors is None else (1 / factors).to(like.dtype)
        if inverse is not None:  # as it is stored, so that the two parts cancel
            wide, channels = wide / inverse.float(), channels * inverse.float()
        scale = stored_scale(wide.abs().amax(1), LARGEST, like)
        quantized = (wide.T / scale.float()).round().clamp(-LARGEST, LARGEST)
        self.register_buffer("weight", quantized.to(torch.int8).contiguous())
        self.register_buffer("weight_scale", scale)
        self.register_buffer("input_scale", stored_scale(channels.max(), LARGEST, like))
        self.register_buffer("smoothing", inverse)
        self.bias: Tensor | None = linear.bias  # torch's stubs know no layer without

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        if self.smoothing is not None:
            x = x * self.smoothing
        x = quantize_dequantize(x, self.input_scale)
        y = x @ dequantize(self.weight, self.weight_scale)
        return y if self.bias is None else y + self.bias


def smoothing(weight: Tensor, channels: Tensor) -> Tensor | None:
    """The factors `s` of each input with the least predicted error; None where 1 is as good.

    Args:
        weight: `[out, in]`, fp32.
        channels: Largest magnitude of each input.
    """
    widest = weight.abs().amax(0).clamp(min=1e-6)
    inputs = channels.clamp(min=channels.max() * 1e-4).clamp(min=1e-6)
    energy = weight.square().sum(0)
    best, least = None, float("inf")
    for strength in STRENGTHS:
        factors = (
            inputs**strength / widest ** (1 - strength) if strength else torch.ones_like(inputs)
        )
        of_inputs = (inputs / factors).max().square() * (factors.square() * energy).sum()
        steps = (weight * factors).abs().amax(1).square().sum()
        of_weights = steps * (inputs / factors / PEAK_TO_RMS).square().sum()
        if (error := float(of_inputs + of_weights)) < least:
            best, least = (factors if strength else None), error
    return best


class Int8(Scheme):
    """Linear layers in INT8; attention stays as it is."""

    name = "int8"
    kernels = (PRODUCTS,)
    weight_bytes = 1.0
    psnr_db: Mapping[Precision, float] = {Precision.FP32: 18, Precision.BF16: 18}
    translations = _TRANSLATIONS
    layout = ScaleLayout(
        weights="int8",
        scales="one for each output",
        inputs="int8",
        input_scales="one, calibrated, after a factor for each input",
    )
    gains = ("8.0", "8.6")

    def replaces(self, layer: nn.Module) -> bool:
        """Linear layers."""
        return isinstance(layer, nn.Linear)

    def ranges(self, name: str, layer: nn.Module) -> Mapping[str, Measure]:
        """The largest magnitude of each input's channels, as `name.channels`."""
        return {f"{name}.channels": channel_amax}

    def counterpart(self, module: nn.Module, name: str, ranges: Ranges) -> nn.Module:
        """`Int8Linear`."""
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        (key,) = self.ranges(name, layer)
        return Int8Linear(layer, ranges[key])


INT8 = Int8()


def channel_amax(inputs: tuple[Tensor, ...]) -> Tensor:
    """The largest magnitude of each channel of a layer's input."""
    return inputs[0].detach().abs().flatten(0, -2).amax(0)
