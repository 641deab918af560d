"""FP8 (E4M3) linear layers whose quantization survives export as standard Q/DQ.

ModelOpt quantizes this network on a CPU but cannot export it: the dynamo exporter refuses its fake
tensors, and its TorchScript route writes operators that ONNX Runtime does not know. Two custom
operators do: in eager torch they round as FP8 hardware does, so accuracy is measured before
anything is exported, and in ONNX they become QuantizeLinear and DequantizeLinear, which ONNX
Runtime executes and TensorRT fuses into FP8 GEMMs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
import onnxscript
import torch
from torch import Tensor, nn

E4M3_MAX = 448.0
"""Largest finite value of float8_e4m3fn."""

UNQUANTIZED = (
    ".x_embedder",
    ".context_embedder",
    ".time_text_embed",
    ".norm_out",
    "transformer.proj_out",
)
"""Parts of the denoiser that stay as they are: few FLOPs, and an error in them reaches every token.

Embedders and the end of the network, as in NVIDIA's FLUX recipe. A single block's own `proj_out` is
quantized.
"""

MODULATIONS = (".norm.linear", ".norm1.linear", ".norm1_context.linear")
"""The blocks' modulations stay as they are by default, unlike in NVIDIA's recipe.

They run on one row, so FP8 would save their bytes, 3.2 GB of FLUX, and hardly any arithmetic. Their
own errors are the smallest of all layers, and yet the demo model's pictures lose by it: 29.9 to
29.4 dB in the median, 20.5 to 13.8 dB in the worst one (benchmarks/results/fp8-toon.json). Of
FLUX.1-dev vllm-omni reported noise instead of pictures until sensitive layers were left alone
(#2728, #2795). Who has the weights and no room can try: `--fp8-modulation`.
"""


@torch.library.custom_op("castmate::quantize_dequantize", mutates_args=())
def quantize_dequantize(x: Tensor, scale: Tensor) -> Tensor:
    """Round `x` to E4M3 with one scale for the tensor, and back."""
    wide = (x.float() / scale.float()).clamp(-E4M3_MAX, E4M3_MAX)
    return (wide.to(torch.float8_e4m3fn).float() * scale.float()).to(x.dtype)


@torch.library.custom_op("castmate::dequantize", mutates_args=())
def dequantize(weight: Tensor, scale: Tensor) -> Tensor:
    """An E4M3 tensor times its scale, in the dtype of the scale."""
    return (weight.float() * scale.float()).to(scale.dtype)


@quantize_dequantize.register_fake
def _(x: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(x)


@dequantize.register_fake
def _(weight: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(weight, dtype=scale.dtype)


# The exporter calls with its own symbolic values, for which the operators' types have no name.
op: Any = onnxscript.opset23
_ZERO = onnx.helper.make_tensor("zero", onnx.TensorProto.FLOAT8E4M3FN, [], [0.0])


def _export_quantize_dequantize(x: Any, scale: Any) -> Any:
    zero = op.Constant(value=_ZERO)
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero), scale, zero)


def _export_dequantize(weight: Any, scale: Any) -> Any:
    return op.DequantizeLinear(weight, scale, op.Constant(value=_ZERO))


TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.castmate.quantize_dequantize.default: _export_quantize_dequantize,
    torch.ops.castmate.dequantize.default: _export_dequantize,
}
"""For `torch.onnx.export(custom_translation_table=...)`."""


class Fp8Linear(nn.Module):
    """`y = x W + b` with E4M3 inputs and weights and one scale each.

    The weight is stored `[in, out]`, one byte a value: so it stays one named initializer, where the
    exporter would otherwise fold a transposition into an unnamed copy.
    """

    weight: Tensor
    weight_scale: Tensor
    input_scale: Tensor

    def __init__(self, linear: nn.Linear, input_amax: float) -> None:
        """Quantize a layer.

        Args:
            linear: The layer; its weight is read, not kept.
            input_amax: Largest magnitude seen at its input.
        """
        super().__init__()
        weight = linear.weight.detach()
        scale = _scale(weight.abs().max().item(), weight)
        quantized = (weight.T.float() / scale.float()).clamp(-E4M3_MAX, E4M3_MAX)
        self.register_buffer("weight", quantized.to(torch.float8_e4m3fn).contiguous())
        self.register_buffer("weight_scale", scale)
        self.register_buffer("input_scale", _scale(input_amax, weight))
        self.bias: Tensor | None = linear.bias  # torch's stubs know no layer without

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        x = quantize_dequantize(x, self.input_scale)
        y = x @ dequantize(self.weight, self.weight_scale)
        return y if self.bias is None else y + self.bias


class Fp8Attention(nn.Module):
    """`softmax(q k^T / sqrt(d)) v` with both products on E4M3 operands.

    Written out instead of one Attention operator, and with the softmax scaled to E4M3's range,
    because that is the pattern which TensorRT fuses into one FP8 kernel; around its Attention
    operator it would execute the rounding and compute in the wide type.
    """

    query_scale: Tensor
    key_scale: Tensor
    value_scale: Tensor
    weights_scale: Tensor

    def __init__(self, amax: tuple[float, float, float], head_dim: int, like: Tensor) -> None:
        """Quantize an attention.

        Args:
            amax: Largest magnitudes seen of query, key and value.
            head_dim: d.
            like: A tensor of the dtype and on the device of the network.
        """
        super().__init__()
        self.factor = head_dim**-0.5
        query, key, value = amax
        self.register_buffer("query_scale", _scale(query * self.factor, like))
        self.register_buffer("key_scale", _scale(key, like))
        self.register_buffer("value_scale", _scale(value, like))
        self.register_buffer("weights_scale", _scale(1.0, like))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: None = None) -> Tensor:
        """As `ScaledDotProduct`, without a mask."""
        query = quantize_dequantize(query * self.factor, self.query_scale)
        key = quantize_dequantize(key.transpose(-1, -2), self.key_scale)
        weights = quantize_dequantize((query @ key).softmax(-1), self.weights_scale)
        return weights @ quantize_dequantize(value, self.value_scale)


def _scale(amax: float, like: Tensor) -> Tensor:
    """The scale as it is stored: rounded before anything is divided by it, and never 0."""
    smallest = torch.finfo(like.dtype).smallest_normal
    return torch.tensor(max(amax / E4M3_MAX, smallest), dtype=like.dtype, device=like.device)
